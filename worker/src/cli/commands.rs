//! The bodies of the commands that work on files alone, without queues or a stream: each takes a
//! plain struct of options and returns what there is to say. The command line only parses and prints.

pub mod bench;
pub mod files;
pub mod inspect;
pub mod pack;
pub mod unpack;
