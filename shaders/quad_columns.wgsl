// Four elements at a time: here, four neighbouring columns, each of a row of its own as far as statistics go. What belongs to a
// row is one number of four, a REAL.

alias REAL = vec4<f32>;
alias BITS = vec4<u32>;
alias INT = vec4<i32>;
alias TRUTH = vec4<bool>;

fn some(x: TRUTH) -> bool {
    return any(x);
}

// Where the current row of each tensor starts.
var<private> start: At;

fn locate(row: u32) {
    start = row_at(row);
}

// The one number in a quad that is the same in all of a row.
fn row_number(x: vec4<f32>) -> REAL {
    return x;
}

// The columns of the four elements at `col`.
fn columns_of(col: u32) -> vec4<u32> {
    return vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u);
}
