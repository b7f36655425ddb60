// Four elements at a time: here, one column of four neighbouring rows. What belongs to a row is one number of four, a
// REAL; the text of the kernels is that for a single row.

alias REAL = vec4<f32>;
alias BITS = vec4<u32>;
alias INT = vec4<i32>;
alias TRUTH = vec4<bool>;

fn some(x: TRUTH) -> bool {
    return any(x);
}

// Where the current rows of each tensor start. Rows beyond the last one repeat it; they store nothing.
var<private> start: At;
var<private> start_1: At;
var<private> start_2: At;
var<private> start_3: At;
// How many of the four rows there are.
var<private> alive: u32;

fn locate(row: u32) {
    let last = params.first_row + params.rows - 1u;
    start = row_at(row);
    if !EVEN {
        start_1 = row_at(min(row + 1u, last));
        start_2 = row_at(min(row + 2u, last));
        start_3 = row_at(min(row + 3u, last));
    }
    alive = min(last - row + 1u, 4u);
}

// The one number in a quad that is the same in all of a row.
fn row_number(x: vec4<f32>) -> REAL {
    return x;
}

// The columns of the four elements at `col`.
fn columns_of(col: u32) -> vec4<u32> {
    return vec4<u32>(col);
}
