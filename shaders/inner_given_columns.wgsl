// Goes to the row whose statistics of the branch's norm are known.
fn enter_inner() {
    s_of_inner = Statistics(inner_statistics_at(col, 0u), inner_statistics_at(col, 1u), inner_statistics_at(col, 2u),
        INT(inner_statistics_at(col, 3u)));
}
