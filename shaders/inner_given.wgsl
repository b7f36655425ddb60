// Goes to the row whose statistics of the branch's norm are known.
fn enter_inner() {
    s_of_inner = Statistics(inner_statistics_get(0u), inner_statistics_get(1u), inner_statistics_get(2u),
        INT(inner_statistics_get(3u)));
}
