//! The codec of Streampress without the rest of it, for its fuzz targets.

pub mod codec;
