//! streampress
fn main() {}
