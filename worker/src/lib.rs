//! Streampress worker library.
