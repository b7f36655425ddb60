
// Offsets of column `col` from the row's first column, in the tensors of a part.
fn along_PART(col: u32) -> vec4<u32> {
    var at = vec4<u32>(0u);
    var rest = col;
    for (var i = INNER - 1u; i > 0u; i--) {
        let size = params.inner[i].a.x;
        let slower = divided(rest, size);
        at += (rest - slower * size) * params.inner[i].PART;
        rest = slower;
    }
    return at + rest * params.inner[0].PART;
}
