//! Plans of one or more schemas, and a bounded store of them.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    CodecError, Damage, Effort, FormatVersion, Transform,
    bytes::{FieldReader, put_varint},
    transform::plan::{FileNumber, SchemaPlan, most_similar},
};

/// The first bytes of a plan file.
const MAGIC: [u8; 4] = *b"\x89SPP";
/// The version of the plan file. Plans are made again, not kept: other versions are refused.
const VERSION: u8 = 5;
/// Bytes of the check at the end of a plan file.
const CHECK_BYTES: usize = 8;
/// A schema whose plan takes more memory is searched each time.
const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// The largest number of schemas in a plan, one for each length of their blocks, each effort and each version of the format.
const MAX_SCHEMAS: usize = 64;
/// The least recently used schemas of a plan are dropped above this memory.
const MAX_PLAN_BYTES: usize = 4 << 20;

/// The choices of the encoder for the schemas that it has seen. With a plan, packing needs no search.
/// The restored bytes never depend on it.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The least recently used first.
    schemas: Vec<Arc<SchemaPlan>>,
}

/// What a plan knows of the blocks of one schema that are about equally long.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaSummary {
    /// The raw bytes of a block that it is used for.
    pub block_bytes: RangeInclusive<u64>,
    /// The effort of the search that found it; it is not used for a greater one.
    pub effort: Effort,
    /// The version of the format that it is used for.
    pub version: FormatVersion,
    /// How its blocks are arranged.
    pub transform: Transform,
    /// Columns with a known size.
    pub columns: usize,
    /// Choices of codings, predictions, layouts and coders.
    pub choices: usize,
    /// Memory in bytes, roughly.
    pub memory_bytes: usize,
    /// Packed bytes of a raw byte, in the last block that was searched.
    pub packed_share: f64,
}

impl Plan {
    /// The number of schemas, each counted once for each length of its blocks, each effort and each version: a block is known if one
    /// of half to twice its length was packed before with no less effort and in the same version.
    pub fn schema_count(&self) -> usize {
        self.schemas.len()
    }

    /// The memory of the plan in bytes, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.schemas.iter().map(|schema| schema.memory()).sum()
    }

    /// A description of each schema, the least recently used first.
    pub fn summaries(&self) -> Vec<SchemaSummary> {
        self.schemas
            .iter()
            .map(|schema| SchemaSummary {
                block_bytes: schema.len.about(),
                effort: schema.effort,
                version: schema.version,
                transform: schema.representation.transform(),
                columns: schema.columns.len(),
                choices: schema.choices.len(),
                memory_bytes: schema.memory(),
                packed_share: schema.ratio as f64 / f64::from(1 << 16),
            })
            .collect()
    }

    /// Whether `first`, the first bytes of a file, are those of a plan file.
    pub fn is_plan_file(first: &[u8]) -> bool {
        first.starts_with(&MAGIC)
    }

    /// The plan as a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        put_varint(&mut bytes, self.schemas.len() as u64);
        self.schemas
            .iter()
            .for_each(|schema| schema.put(&mut bytes));
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(&hash.as_bytes()[..CHECK_BYTES]);
        bytes
    }

    /// The plan of a file.
    ///
    /// # Errors
    /// If the bytes are damaged, or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::read(bytes).map_err(|damage| CodecError::Plan(damage.0))
    }

    fn read(bytes: &[u8]) -> Result<Self, Damage> {
        let Some(content) = bytes.strip_prefix(&MAGIC) else {
            return Err(Damage::new(
                "not a plan file: 'streampress train' makes one",
            ));
        };
        let damaged = || Damage::new("cut or changed since it was made: train it again");
        let content_len = content.len().checked_sub(CHECK_BYTES).ok_or_else(damaged)?;
        let (body, check) = bytes.split_at(MAGIC.len() + content_len);
        let mut fields = FieldReader::new(&content[..content_len]);
        let version = fields.byte()?;
        if version != VERSION {
            return Err(Damage::new(format!(
                "plan version {version}; this program reads version {VERSION} (train it again)"
            )));
        }
        if blake3::hash(body).as_bytes()[..CHECK_BYTES] != *check {
            return Err(damaged());
        }
        let count = fields.size(MAX_SCHEMAS, "the number of schemas")?;
        let schemas = (0..count)
            .map(|_| SchemaPlan::read(&mut fields).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let plan = Self { schemas };
        let mut memories = plan.schemas.iter().map(|schema| schema.memory());
        if memories.any(|bytes| bytes > MAX_SCHEMA_BYTES) || plan.memory_bytes() > MAX_PLAN_BYTES {
            return Err(Damage::new(
                "a plan of more than 1 MiB a schema or 4 MiB in all",
            ));
        }
        Ok(plan)
    }

    pub(super) fn schemas(&self) -> &[Arc<SchemaPlan>] {
        &self.schemas
    }

    /// Adds what a block learned, and moves its schema to the end.
    pub(super) fn merge(&mut self, learned: &SchemaPlan) {
        if learned.sketch.is_empty() {
            // Bytes without a structure have nothing to be recognised by.
            return;
        }
        let schemas = self.schemas.iter();
        let kind = (learned.effort, learned.version);
        let of_kind = schemas.filter(|schema| (schema.effort, schema.version) == kind);
        let known = most_similar(of_kind, learned.len, &learned.sketch).cloned();
        let mut schema = match known {
            Some(known) => {
                self.schemas.retain(|schema| !Arc::ptr_eq(schema, &known));
                let mut schema = Arc::unwrap_or_clone(known);
                schema.merge(learned);
                schema
            }
            None => learned.clone(),
        };
        if schema.memory() > MAX_SCHEMA_BYTES {
            schema = learned.clone();
        }
        if schema.memory() > MAX_SCHEMA_BYTES {
            return;
        }
        self.schemas.push(Arc::new(schema));
        while self.schemas.len() > MAX_SCHEMAS || self.memory_bytes() > MAX_PLAN_BYTES {
            self.schemas.remove(0);
        }
    }

    fn touch(&mut self, used: &Arc<SchemaPlan>) {
        if let Some(at) = self
            .schemas
            .iter()
            .position(|schema| Arc::ptr_eq(schema, used))
        {
            let schema = self.schemas.remove(at);
            self.schemas.push(schema);
        }
    }
}

/// A plan that packers share and extend: each file starts with what the files before it learned. The
/// least recently used schemas are dropped.
///
/// Some files are searched again in part, and ever fewer as a whole, so that a plan improves whatever the first file was like.
#[derive(Debug, Default)]
pub struct PlanStore {
    plan: Mutex<Plan>,
    files: AtomicU64,
}

impl PlanStore {
    /// The most memory of a store, in bytes.
    pub const MAX_BYTES: usize = MAX_PLAN_BYTES;

    /// A store that begins with `plan`.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan: Mutex::new(plan),
            files: AtomicU64::new(0),
        }
    }

    /// A copy of the plan.
    pub fn plan(&self) -> Plan {
        self.locked().clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next file.
    pub(super) fn next_file(&self) -> FileNumber {
        FileNumber(self.files.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Adds what a block learned, and marks its schema as used.
    pub(super) fn update(&self, used: Option<&Arc<SchemaPlan>>, learned: Option<&SchemaPlan>) {
        let mut plan = self.locked();
        if let Some(used) = used {
            plan.touch(used);
        }
        if let Some(learned) = learned {
            plan.merge(learned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::plan::{BlockLen, ColumnStats};

    fn schema(feature: u64, columns: u64) -> SchemaPlan {
        SchemaPlan {
            len: BlockLen(1 << 20),
            sketch: vec![feature],
            columns: (0..columns)
                .map(|key| (key, ColumnStats::new(key, 1, 0)))
                .collect(),
            ..SchemaPlan::default()
        }
    }

    #[test]
    fn a_schema_whose_plan_would_be_too_large_is_kept_by_none() {
        let mut plan = Plan::default();
        plan.merge(&schema(1, 100));
        let known = plan.memory_bytes();
        plan.merge(&schema(2, 100_000));
        assert_eq!((plan.schema_count(), plan.memory_bytes()), (1, known));
        plan.merge(&schema(2, 20_000));
        assert_eq!(plan.schema_count(), 2);
    }

    #[test]
    fn a_plan_file_with_a_schema_that_is_too_large_is_refused() {
        let too_large = Plan {
            schemas: vec![Arc::new(schema(1, 100_000))],
        };
        let refused = Plan::from_bytes(&too_large.to_bytes()).expect_err("too large");
        assert!(refused.to_string().contains("1 MiB"), "{refused}");
        let all = (0..6).map(|feature| Arc::new(schema(feature, 20_000)));
        let too_large = Plan {
            schemas: all.collect(),
        };
        Plan::from_bytes(&too_large.to_bytes()).expect_err("too large together");
    }
}
