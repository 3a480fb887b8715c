//! In place of AWS in a build without it: there is never a connection, and the error says how to get one.

use std::sync::Arc;

use anyhow::{Result, bail};
use streampress_crds::location::Location;
use streampress_crds::settings::{QueueSettings, StreamSettings};
use streampress_transport::{ChunkStream, Files, Queue};

use super::HOW_TO_GET_AWS;
use crate::config::Config;

/// A connection that cannot exist.
#[derive(Debug, Clone)]
pub enum AwsConnection {}

impl AwsConnection {
    pub(super) async fn open(_config: &Config) -> Result<Self> {
        bail!(HOW_TO_GET_AWS)
    }

    pub(super) async fn queue(&self, _settings: &QueueSettings) -> Result<Arc<dyn Queue>> {
        match *self {}
    }

    pub(super) async fn stream(&self, _settings: &StreamSettings) -> Result<Arc<dyn ChunkStream>> {
        match *self {}
    }

    pub(super) async fn stream_named(&self, _name: &str) -> Result<Arc<dyn ChunkStream>> {
        match *self {}
    }

    pub(super) async fn retention_hours(&self, _stream: &str) -> Result<u32> {
        match *self {}
    }

    pub(crate) fn files(&self, _location: &Location) -> Result<Arc<dyn Files>> {
        match *self {}
    }
}
