//! Reads the variable `STREAMPRESS_PIPELINE`. An unknown field is ignored and reported; a missing or wrong one is an error.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::limits;
use crate::settings::{CodecSettings, RECEIPTS_ONLY_VERSION, Role, Settings, VARIABLE, VERSION};

/// Settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The text is not JSON.
    #[error(
        "{VARIABLE} is not JSON (line {line}, column {column}: {reason}); let the operator write it"
    )]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Another release wrote them.
    #[error(
        "{VARIABLE} has version {found}, this worker reads versions {VERSION} to {RECEIPTS_ONLY_VERSION}; run the worker and the operator from one release"
    )]
    Version {
        /// The version found.
        found: String,
    },
    /// A field is missing or wrong.
    #[error("{VARIABLE} field {field}: {reason}")]
    Field {
        /// Path of the field, e.g. `transport.filesQueue.name`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads settings. Returns also the paths of fields that this release does not know.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn read(json: &str) -> Result<(Settings, Vec<String>), SettingsError> {
    let value: Value = serde_json::from_str(json).map_err(|error| SettingsError::NotJson {
        line: error.line(),
        column: error.column(),
        reason: without_place(&error),
    })?;
    // The version is checked first: with another one, no other error means anything.
    match value.get("version") {
        Some(version) if version.as_u64().is_some_and(is_known) => {}
        Some(version) => {
            return Err(SettingsError::Version {
                found: crate::invalid::shorten(version.to_string()),
            });
        }
        None => return Err(wrong("version", "is missing")),
    }
    let role = value
        .get("role")
        .ok_or_else(|| wrong("role", "is missing"))?;
    let role: Role = serde_json::from_value(role.clone())
        .map_err(|_| wrong("role", "must be generator, compressor or decompressor"))?;
    let settings = match role {
        Role::Generator => Settings::Generator(typed(&value)?),
        Role::Compressor => Settings::Compressor(typed(&value)?),
        Role::Decompressor => Settings::Decompressor(typed(&value)?),
    };
    check(&settings)?;
    let known = serde_json::to_value(&settings).unwrap_or_default();
    let mut ignored = Vec::new();
    list_ignored(&value, &known, "", &mut ignored);
    Ok((settings, ignored))
}

/// What is wrong, without serde's words for where.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    crate::invalid::shorten(text.strip_suffix(&place).unwrap_or(&text).to_owned())
}

fn is_known(version: u64) -> bool {
    (u64::from(VERSION)..=u64::from(RECEIPTS_ONLY_VERSION)).contains(&version)
}

/// Reads one role's settings from JSON.
fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, SettingsError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let reason = error.inner().to_string();
        let path = error.path().to_string();
        // serde names a missing field in its text and the struct that lacks it in the path.
        let missing = reason
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split('`').next());
        match missing {
            Some(name) if path == "." => wrong(name, "is missing"),
            Some(name) => wrong(&format!("{path}.{name}"), "is missing"),
            None => wrong(&path, &crate::invalid::shorten(reason)),
        }
    })
}

/// Checks the bounds that a worker relies on, for settings that a person wrote.
fn check(settings: &Settings) -> Result<(), SettingsError> {
    match settings {
        Settings::Generator(_) => Ok(()),
        Settings::Compressor(compressor) => {
            at_least_one("slots", compressor.slots)?;
            at_least_one("intervalSeconds", compressor.interval_seconds)?;
            at_least_one(
                "transport.stream.shards",
                compressor.transport.stream.shards,
            )?;
            check_codec(&compressor.codec)
        }
        Settings::Decompressor(decompressor) => {
            at_least_one("slots", decompressor.slots)?;
            at_least_one("intervalSeconds", decompressor.interval_seconds)
        }
    }
}

fn at_least_one(field: &str, value: u32) -> Result<(), SettingsError> {
    match value {
        0 => Err(wrong(field, "is 0, must be at least 1")),
        _ => Ok(()),
    }
}

fn check_codec(codec: &CodecSettings) -> Result<(), SettingsError> {
    let block = codec.block_bytes as u64;
    let record = codec.record_bytes as u64;
    if !limits::BLOCK_BYTES.contains(&block) {
        return Err(wrong(
            "codec.blockBytes",
            &format!("is {block}, must be {}", limits::BLOCK_TEXT),
        ));
    }
    if !limits::RECORD_BYTES.contains(&record) || record > block {
        let reason = format!(
            "is {record}, must be {} and no more than blockBytes",
            limits::RECORD_TEXT
        );
        return Err(wrong("codec.recordBytes", &reason));
    }
    Ok(())
}

/// Collects the paths of fields that were written but are not known.
fn list_ignored(written: &Value, known: &Value, path: &str, ignored: &mut Vec<String>) {
    let (Value::Object(written), Value::Object(known)) = (written, known) else {
        return;
    };
    for (name, value) in written {
        let path = match path {
            "" => name.clone(),
            _ => format!("{path}.{name}"),
        };
        match known.get(name) {
            Some(known) => list_ignored(value, known, &path, ignored),
            None if value.is_null() => {}
            None => ignored.push(path),
        }
    }
}

fn wrong(field: &str, reason: &str) -> SettingsError {
    SettingsError::Field {
        field: field.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::pipeline::{
        CompressionPipeline, CompressionPipelineSpec, GeneratorSchema, GeneratorSpec,
    };
    use crate::checked::CheckedPipeline;

    fn settings(role: Role) -> Value {
        let schema = GeneratorSchema {
            example: Some(crate::api::pipeline::Example::IotSensors),
            ..GeneratorSchema::default()
        };
        let generator = GeneratorSpec {
            schema: Some(schema),
            ..GeneratorSpec::default()
        };
        let spec = CompressionPipelineSpec {
            generator: Some(generator),
            ..Default::default()
        };
        let checked = CheckedPipeline::new(CompressionPipeline::new("shop", spec)).expect("valid");
        serde_json::to_value(checked.resolved().for_role(role)).expect("JSON")
    }

    fn edited(
        role: Role,
        edit: impl FnOnce(&mut Value),
    ) -> Result<(Settings, Vec<String>), String> {
        let mut value = settings(role);
        edit(&mut value);
        read(&value.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_of_every_role_read_back_as_written() {
        for role in Role::ALL {
            let (settings, ignored) = edited(role, |_| {}).expect("readable");
            assert_eq!(settings.role(), role);
            assert_eq!(ignored, Vec::<String>::new());
            assert_eq!(read(&settings.to_json()), Ok((settings, vec![])));
        }
    }

    /// As the first release wrote them: what a running pod has must stay readable.
    #[test]
    fn settings_of_version_1_are_read_and_written_as_ever() {
        let queue = |name: &str| {
            format!(
                r#"{{"name":"sales-shop-{name}.fifo","deadLetterName":"sales-shop-{name}-dlq.fifo","visibilityTimeoutSeconds":60,"maxReceiveCount":20}}"#
            )
        };
        let (files, chunks) = (queue("files"), queue("chunks"));
        let identity = r#""version":1,"pipeline":"shop","namespace":"sales","ordering":"PerName""#;
        let aws = r#""aws":{"region":"eu-west-1","endpointURL":"http://localstack:4566"}"#;
        let stream = r#""stream":{"name":"sales-shop-stream","shards":2,"retentionHours":24}"#;
        for json in [
            format!(
                r#"{{"role":"generator",{identity},{aws},"transport":{{"filesQueue":{files}}},"source":{{"location":"file:///data/in"}},"generator":{{"schema":{{"example":"stock-market"}},"fileBytes":1048576,"filesPerMinute":60,"files":0,"format":"json","seed":0}},"codecFormat":"Hybrid"}}"#
            ),
            format!(
                r#"{{"role":"compressor",{identity},"slots":1,"intervalSeconds":1,{aws},"transport":{{"filesQueue":{files},"chunksQueue":{chunks},{stream}}},"source":{{"location":"s3://bucket/in","formats":["json","csv","txt"],"scanSeconds":0,"onCompressed":"Keep"}},"codec":{{"format":"Hybrid","effort":"Balanced","blockBytes":4194304,"recordBytes":409600}}}}"#
            ),
            format!(
                r#"{{"role":"decompressor",{identity},"slots":1,"intervalSeconds":1,{aws},"transport":{{"chunksQueue":{chunks},{stream}}},"destination":{{"location":"file:///data/out"}},"report":{{"location":"file:///data/reports/results.html"}}}}"#
            ),
        ] {
            let (settings, ignored) = read(&json).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(ignored, Vec::<String>::new());
            assert_eq!(settings.to_json(), json);
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_reported() {
        let (_, ignored) = edited(Role::Compressor, |value| {
            value["colour"] = "red".into();
            value["transport"]["filesQueue"]["delay"] = 1.into();
        })
        .expect("readable");
        assert_eq!(ignored, ["colour", "transport.filesQueue.delay"]);
    }

    #[test]
    fn a_missing_field_is_named_by_its_path() {
        for (role, parent, name, path) in [
            (Role::Compressor, "", "codec", "codec"),
            (Role::Compressor, "", "namespace", "namespace"),
            (
                Role::Compressor,
                "/codec",
                "recordBytes",
                "codec.recordBytes",
            ),
            (
                Role::Decompressor,
                "/transport/chunksQueue",
                "name",
                "transport.chunksQueue.name",
            ),
            (
                Role::Generator,
                "/generator",
                "fileBytes",
                "generator.fileBytes",
            ),
            (Role::Generator, "", "role", "role"),
            (Role::Generator, "", "version", "version"),
        ] {
            let error = edited(role, |value| {
                let parent = value.pointer_mut(parent).and_then(Value::as_object_mut);
                parent.expect("an object").remove(name).expect("a field");
            })
            .expect_err(path);
            assert_eq!(
                error,
                format!("STREAMPRESS_PIPELINE field {path}: is missing")
            );
        }
    }

    #[test]
    fn a_wrong_value_is_named_by_its_path() {
        for (role, pointer, value, expected) in [
            (
                Role::Compressor,
                "/role",
                Value::from("packer"),
                "role: must be generator, compressor",
            ),
            (
                Role::Compressor,
                "/slots",
                0.into(),
                "slots: is 0, must be at least 1",
            ),
            (
                Role::Decompressor,
                "/intervalSeconds",
                0.into(),
                "intervalSeconds: is 0",
            ),
            (
                Role::Compressor,
                "/codec/formatVersion",
                3.into(),
                "codec.formatVersion: is 3, must be 1 or 2",
            ),
            (
                Role::Compressor,
                "/codec/blockBytes",
                1.into(),
                "codec.blockBytes: is 1, must be",
            ),
            (
                Role::Compressor,
                "/codec/recordBytes",
                (1 << 20).into(),
                "codec.recordBytes: is 1048576",
            ),
            (
                Role::Compressor,
                "/source/location",
                "/data".into(),
                "source.location: \"/data\" is not a location",
            ),
            (
                Role::Compressor,
                "/transport/stream/shards",
                (-1).into(),
                "transport.stream.shards: invalid value",
            ),
        ] {
            let error = edited(role, |settings| {
                // A field with its default value is left out.
                let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
                settings.pointer_mut(parent).expect("an object")[field] = value;
            })
            .expect_err(pointer);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn another_version_is_refused_before_anything_else() {
        let error = read(r#"{"version": 3}"#).expect_err("another version");
        assert_eq!(error, SettingsError::Version { found: "3".into() });
        assert!(error.to_string().contains("from one release"), "{error}");
    }

    #[test]
    fn a_compressor_that_only_takes_receipts_has_the_second_version() {
        let (settings, _) = edited(Role::Compressor, |_| {}).expect("readable");
        let Settings::Compressor(packs) = settings else {
            panic!("{settings:?}");
        };
        assert!(!packs.receipts_only);
        let only = Settings::Compressor(packs.of_receipts_only());
        assert!(only.to_json().contains(r#""version":2"#));
        assert_eq!(read(&only.to_json()), Ok((only, vec![])));
    }

    #[test]
    fn text_that_is_not_json_is_refused_with_line_and_column() {
        let error = read("{\"version\": 1,\n \"role\"}")
            .expect_err("no JSON")
            .to_string();
        assert!(error.contains("line 2, column 8"), "{error}");
        let begun = read("{").expect_err("no JSON").to_string();
        assert_eq!(
            begun,
            "STREAMPRESS_PIPELINE is not JSON (line 1, column 1: EOF while parsing an object); let the operator write it"
        );
    }
}
