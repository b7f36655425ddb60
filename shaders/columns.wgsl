// Sums over rows: a thread owns four columns of one chunk of rows. Partial sums are laid out as [parameter][chunk][column].

const ROW_LEAF = 16u;
// Which of the parameters summed is whose.
const OF_WEIGHT = 0u;
const OF_BIAS = select(0u, 1u, SUM_WEIGHT);
const OF_ALPHA = OF_BIAS + select(0u, 1u, SUM_BIAS);

var<private> col: u32;
var<private> chunk: u32;

// Whether this thread has columns.
fn enter_columns(group: vec3<u32>, groups: vec3<u32>, invocation: u32) -> bool {
    let index = group.x + group.y * groups.x;
    col = params.first_col + 4u * ((index % params.col_groups) * GROUP + invocation);
    chunk = params.first_chunk + index / params.col_groups;
    return col < params.end_col && chunk < params.chunks;
}

// The rows of this launch that are in the chunk.
fn first_row_of_chunk() -> u32 {
    return max(chunk * params.chunk_rows, params.first_row);
}

fn end_row_of_chunk() -> u32 {
    let end = params.first_row + params.rows;
    // Not beyond 2^32, where a sum would wrap.
    return first_row_of_chunk() + min(end - first_row_of_chunk(), (chunk + 1u) * params.chunk_rows - first_row_of_chunk());
}

fn partial_at(parameter: u32, of_chunk: u32) -> u32 {
    return (parameter * params.chunks + of_chunk) * params.partial_cols + col - params.first_col;
}

fn load_partial(parameter: u32, of_chunk: u32) -> vec4<f32> {
    let at = partial_at(parameter, of_chunk);
    let last = params.end_col - 1u - col;
    return vec4<f32>(
        partials_get(at),
        partials_get(at + min(1u, last)),
        partials_get(at + min(2u, last)),
        partials_get(at + min(3u, last)),
    );
}

// What earlier launches have added to this chunk.
fn begin_partial(parameter: u32) -> vec4<f32> {
    if first_row_of_chunk() > chunk * params.chunk_rows {
        return load_partial(parameter, chunk);
    }
    return zero4();
}

fn store_partial(parameter: u32, of_chunk: u32, sum: vec4<f32>) {
    let at = partial_at(parameter, of_chunk);
    partials_set(at, sum.x);
    if col + 1u < params.end_col {
        partials_set(at + 1u, sum.y);
    }
    if col + 2u < params.end_col {
        partials_set(at + 2u, sum.z);
    }
    if col + 3u < params.end_col {
        partials_set(at + 3u, sum.w);
    }
}
