fn NAME_raise(col: u32) {}
