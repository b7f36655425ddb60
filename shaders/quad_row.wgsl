// Four elements at a time: here, four neighbouring columns of one row. What belongs to a row is one number, a REAL.

alias REAL = f32;
alias BITS = u32;
alias INT = i32;
alias TRUTH = bool;

fn some(x: TRUTH) -> bool {
    return x;
}

// Where the current row of each tensor starts.
var<private> start: At;

fn locate(row: u32) {
    start = row_at(row);
}

// The one number in a quad that is the same in all of a row.
fn row_number(x: vec4<f32>) -> REAL {
    return x.x;
}

// The columns of the four elements at `col`.
fn columns_of(col: u32) -> vec4<u32> {
    return vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u);
}
