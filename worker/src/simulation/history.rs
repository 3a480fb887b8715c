//! What happens in a simulation, as steps; and the generator of ordinary and bad life.

use std::fmt;

use streampress_codec::FormatVersion;
use streampress_crds::api::pipeline::{OnCompressed, OnRestored};

/// The names of files in a history.
pub(super) const NAMES: [&str; 3] = ["a.txt", "b.csv", "folder/c.json"];

/// The name of a number.
pub(super) fn at(number: u8) -> &'static str {
    NAMES[usize::from(number) % NAMES.len()]
}

/// A pipeline and what happens to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct History {
    /// Of all random numbers while it runs.
    pub(super) seed: u64,
    pub(super) settings: SimSettings,
    /// Each with the milliseconds that pass before it.
    pub(super) steps: Vec<(u64, HistoryStep)>,
}

/// How the pipeline is set up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SimSettings {
    pub(super) compressors: u8,
    pub(super) decompressors: u8,
    /// Slots of each role.
    pub(super) slots: u8,
    /// Between two scans of the source; without, files are submitted.
    pub(super) scan_seconds: Option<u8>,
    pub(super) visibility_seconds: u16,
    /// Modification times are whole seconds.
    pub(super) is_coarse: bool,
    pub(super) is_strict: bool,
    /// The scanner keeps its journal at the source and other processes leave notes there, as on AWS; else all share one, as in
    /// a data folder.
    pub(super) has_notes: bool,
    /// Small files are packed together.
    pub(super) bundles: bool,
    /// What compressors write.
    pub(super) format_version: FormatVersion,
    /// What becomes of the source of a packed file.
    pub(super) on_compressed: OnCompressed,
    /// What becomes of the source of a restored file.
    pub(super) on_restored: OnRestored,
    /// How often dead letters are redriven at the end.
    pub(super) redrives: u8,
    /// How long the stream keeps records.
    pub(super) retention_minutes: u16,
}

impl SimSettings {
    /// Whether sources are put aside under another name.
    pub(super) fn renames(&self) -> bool {
        self.on_restored == OnRestored::Rename || self.on_compressed == OnCompressed::Rename
    }
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum HistoryStep {
    /// A program writes a source file.
    Write {
        name: u8,
        content: u16,
        bytes: u32,
        how: How,
        time: Time,
    },
    Append {
        name: u8,
        content: u16,
        bytes: u16,
    },
    Truncate {
        name: u8,
        bytes: u16,
    },
    /// Over another source file, with its time or with the present one.
    Copy {
        from: u8,
        to: u8,
        keeps_time: bool,
    },
    RenameOver {
        from: u8,
        to: u8,
    },
    /// A log is rotated: copied to another name, then emptied in place.
    CopyTruncate {
        from: u8,
        to: u8,
    },
    Touch {
        name: u8,
        time: Time,
    },
    Delete {
        name: u8,
    },
    /// The file cannot be opened for a while.
    Protect {
        name: u8,
        seconds: u32,
    },
    /// A program changes what was restored, or writes something there itself.
    TouchCopy {
        name: u8,
        time: Time,
    },
    WriteCopy {
        name: u8,
        content: u16,
        bytes: u16,
        how: How,
    },
    DeleteCopy {
        name: u8,
    },
    /// A program makes a folder under a name that is free at the destination, and removes it later.
    Obstruct {
        name: u8,
        seconds: u32,
    },
    /// A file at the destination cannot be changed for a while.
    Deny {
        name: u8,
        seconds: u32,
    },
    /// A person's commands.
    Submit {
        name: u8,
    },
    Redrive,
    Recover,
    /// A process dies right before the effect after so many; it is started again.
    Kill {
        role: u8,
        effects: u8,
    },
    Freeze {
        role: u8,
        seconds: u32,
    },
    /// Stopped as by SIGTERM, and started again.
    Restart {
        role: u8,
    },
    /// Stopped for a while.
    Stop {
        role: u8,
        seconds: u32,
    },
    /// The pipeline is suspended for a while: what announces and packs files stops, what restores them goes on.
    Suspend {
        seconds: u32,
    },
    /// The wall clock jumps.
    Clock {
        millis: i64,
    },
    /// Blocking work stalls now and then, at most for so long.
    Stall {
        longest_seconds: u32,
        seconds: u32,
    },
    Down {
        service: ServiceKind,
        seconds: u32,
    },
    /// Calls are lost before and after their effect.
    Lossy {
        service: ServiceKind,
        percent: u8,
        seconds: u32,
    },
    /// Messages of a queue are delivered again after they were deleted.
    Duplicates {
        service: ServiceKind,
        percent: u8,
        seconds: u32,
    },
    Slow {
        service: ServiceKind,
        millis: u32,
        seconds: u32,
    },
    DiskDown {
        side: Side,
        seconds: u32,
    },
    ReadOnly {
        side: Side,
        seconds: u32,
    },
    /// Changes are made and answered with an error.
    LostAnswers {
        side: Side,
        percent: u8,
        seconds: u32,
    },
    /// Only so many bytes more fit.
    Full {
        side: Side,
        free_bytes: u32,
        seconds: u32,
    },
    LoseSlots,
    Reshard {
        shards: u8,
    },
    Purge {
        service: ServiceKind,
    },
    Remake {
        service: ServiceKind,
    },
    /// An emulator is restarted without its state: all queues and the stream are made anew at once.
    RemakeAll,
}

impl HistoryStep {
    /// Whether others take messages out of the queues.
    pub(super) fn loses_messages(&self) -> bool {
        match self {
            Self::RemakeAll => true,
            Self::Purge { service } | Self::Remake { service } => matches!(
                service,
                ServiceKind::FilesQueue | ServiceKind::ChunksQueue | ServiceKind::ReceiptsQueue
            ),
            _ => false,
        }
    }
}

/// How a program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// A private file, renamed over.
    Replace,
    InPlace,
}

/// The modification time that a program sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    Now,
    /// The one that the file had.
    Same,
    /// So many seconds ago.
    Past(u32),
    /// In so many seconds.
    Future(u32),
}

/// A service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceKind {
    FilesQueue,
    ChunksQueue,
    Stream,
    Slots,
    ReceiptsQueue,
}

/// A disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

/// The content of a number and a size: text that no other number has.
pub(super) fn content(number: u16, bytes: u32) -> Vec<u8> {
    let bytes = usize::try_from(bytes).unwrap_or_default();
    let mut random = fastrand::Rng::with_seed(u64::from(number));
    let mut text = format!("{number}\n").into_bytes();
    while text.len() < bytes {
        let row = format!(
            "{number},{},north,2024-05-{:02}\n",
            random.u16(..),
            random.u8(1..29)
        );
        text.extend_from_slice(row.as_bytes());
    }
    text.truncate(bytes);
    text
}

impl fmt::Display for History {
    /// As Rust, to paste into a test.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "History {{")?;
        writeln!(f, "    seed: {},", self.seed)?;
        let settings = qualified(&format!("{:?}", self.settings));
        writeln!(f, "    settings: {settings},")?;
        writeln!(f, "    steps: vec![")?;
        for (millis, step) in &self.steps {
            let step = qualified(&format!("{step:?}"));
            writeln!(f, "        ({millis}, {step}),")?;
        }
        write!(f, "    ],\n}}")
    }
}

/// Names the types of values that a test does not import: some are called like steps.
fn qualified(value: &str) -> String {
    let types = [
        ("format_version: ", "FormatVersion"),
        ("on_compressed: ", "OnCompressed"),
        ("on_restored: ", "OnRestored"),
        ("service: ", "ServiceKind"),
        ("side: ", "Side"),
    ];
    types.iter().fold(value.to_owned(), |value, (field, of)| {
        value.replace(field, &format!("{field}{of}::"))
    })
}

/// What the generator leaves out, each with the reason.
const LEFT_OUT: &[fn(&SimSettings, &HistoryStep) -> bool] = &[
    // Without a scan no process knows what a person submitted and a service lost.
    |settings, step| {
        let loses_messages = matches!(
            step,
            HistoryStep::Purge { .. } | HistoryStep::Remake { .. } | HistoryStep::RemakeAll
        );
        settings.scan_seconds.is_none() && loses_messages
    },
];

impl History {
    /// The history of a seed.
    pub(super) fn generate(seed: u64, steps: usize) -> Self {
        let mut generator = HistoryGenerator {
            random: fastrand::Rng::with_seed(seed),
            contents: 0,
        };
        let settings = SimSettings {
            // Of two seeds in a row one is odd: either test has both.
            bundles: seed % 4 < 2,
            on_restored: match seed / 8 % 6 {
                0 | 1 => OnRestored::Delete,
                2 => OnRestored::Rename,
                _ => OnRestored::Keep,
            },
            on_compressed: match seed / 8 % 6 {
                3 => OnCompressed::Rename,
                _ => OnCompressed::Keep,
            },
            redrives: match seed % 8 {
                0..4 => 3,
                _ => 0,
            },
            retention_minutes: match seed / 48 % 3 {
                0 => 10,
                1 => 60,
                _ => 24 * 60,
            },
            format_version: match seed / 144 % 2 {
                0 => FormatVersion::V1,
                _ => FormatVersion::V2,
            },
            ..generator.settings()
        };
        let mut all = Vec::with_capacity(steps);
        while all.len() < steps {
            let step = generator.step();
            if !LEFT_OUT
                .iter()
                .any(|is_left_out| is_left_out(&settings, &step))
            {
                all.push((generator.pause(), step));
            }
        }
        Self {
            seed,
            settings,
            steps: all,
        }
    }
}

struct HistoryGenerator {
    random: fastrand::Rng,
    contents: u16,
}

impl HistoryGenerator {
    fn settings(&mut self) -> SimSettings {
        let random = &mut self.random;
        SimSettings {
            compressors: random.u8(1..=2),
            decompressors: random.u8(1..=3),
            slots: random.u8(1..=2),
            scan_seconds: (random.u8(..4) > 0).then(|| random.u8(2..=15)),
            visibility_seconds: if random.bool() { 30 } else { 300 },
            is_coarse: random.u8(..4) == 0,
            is_strict: random.u8(..5) == 0,
            has_notes: random.bool(),
            bundles: false,
            format_version: FormatVersion::default(),
            on_compressed: OnCompressed::Keep,
            on_restored: OnRestored::Keep,
            redrives: 0,
            retention_minutes: 24 * 60,
        }
    }

    /// Mostly moments, sometimes minutes.
    fn pause(&mut self) -> u64 {
        match self.random.u8(..20) {
            0..10 => self.random.u64(1..1000),
            10..18 => self.random.u64(1000..10_000),
            18 => self.random.u64(10_000..60_000),
            _ => self.random.u64(60_000..300_000),
        }
    }

    fn name(&mut self) -> u8 {
        self.random.u8(..NAMES.len() as u8)
    }

    fn role(&mut self) -> u8 {
        self.random.u8(..6)
    }

    /// Seconds, minutes, rarely hours.
    fn time(&mut self) -> u32 {
        match self.random.u8(..20) {
            0..12 => self.random.u32(1..30),
            12..18 => self.random.u32(30..900),
            18 => self.random.u32(900..7200),
            _ => self.random.u32(7200..40_000),
        }
    }

    fn modified(&mut self) -> Time {
        match self.random.u8(..10) {
            0..6 => Time::Now,
            6 => Time::Same,
            7..9 => Time::Past(self.random.u32(1..100_000)),
            _ => Time::Future(self.random.u32(1..100_000)),
        }
    }

    /// Mostly a new one; sometimes one of before, under its own or another name.
    fn content(&mut self) -> (u16, u16) {
        let is_old = self.contents > 0 && self.random.u8(..4) == 0;
        let number = match is_old {
            true => self.random.u16(..self.contents),
            false => {
                self.contents += 1;
                self.contents - 1
            }
        };
        // The size follows from the number, and few sizes are shared by many contents.
        let bytes = [0, 1, 12, 40, 40, 40, 300, 4096][usize::from(number % 8)];
        (number, bytes)
    }

    fn how(&mut self) -> How {
        match self.random.bool() {
            true => How::Replace,
            false => How::InPlace,
        }
    }

    fn side(&mut self) -> Side {
        match self.random.bool() {
            true => Side::Source,
            false => Side::Destination,
        }
    }

    fn service(&mut self) -> ServiceKind {
        use ServiceKind::{ChunksQueue, FilesQueue, ReceiptsQueue, Slots, Stream};
        let all = [FilesQueue, ChunksQueue, Stream, Slots, ReceiptsQueue];
        all[usize::from(self.random.u8(..5))]
    }

    fn step(&mut self) -> HistoryStep {
        match self.random.u8(..100) {
            0..60 => self.life_of_a_source(),
            60..72 => self.life_of_a_copy(),
            72..75 => HistoryStep::Redrive,
            75 => HistoryStep::Recover,
            76..88 => self.life_of_a_process(),
            _ => self.life_of_a_service(),
        }
    }

    fn life_of_a_source(&mut self) -> HistoryStep {
        let name = self.name();
        match self.random.u8(..21) {
            0..8 => {
                let (content, bytes) = self.content();
                let (how, time) = (self.how(), self.modified());
                HistoryStep::Write {
                    name,
                    content,
                    bytes: bytes.into(),
                    how,
                    time,
                }
            }
            8..13 => HistoryStep::Submit { name },
            13 => {
                let (content, bytes) = self.content();
                HistoryStep::Append {
                    name,
                    content,
                    bytes: bytes.min(700),
                }
            }
            14 => HistoryStep::Truncate {
                name,
                bytes: self.random.u16(..100),
            },
            15 => HistoryStep::Copy {
                from: self.name(),
                to: name,
                keeps_time: self.random.bool(),
            },
            16 => HistoryStep::RenameOver {
                from: self.name(),
                to: name,
            },
            17 => HistoryStep::Touch {
                name,
                time: self.modified(),
            },
            18 => HistoryStep::Delete { name },
            19 => HistoryStep::CopyTruncate {
                from: self.name(),
                to: name,
            },
            _ => HistoryStep::Protect {
                name,
                seconds: self.time(),
            },
        }
    }

    fn life_of_a_copy(&mut self) -> HistoryStep {
        let name = self.name();
        match self.random.u8(..17) {
            16 => HistoryStep::Deny {
                name,
                seconds: self.time(),
            },
            0..4 => HistoryStep::TouchCopy {
                name,
                time: self.modified(),
            },
            4..8 => HistoryStep::DeleteCopy { name },
            8 => HistoryStep::Obstruct {
                name,
                seconds: self.time(),
            },
            _ => {
                let (content, bytes) = self.content();
                HistoryStep::WriteCopy {
                    name,
                    content,
                    bytes,
                    how: self.how(),
                }
            }
        }
    }

    fn life_of_a_process(&mut self) -> HistoryStep {
        let role = self.role();
        match self.random.u8(..11) {
            10 => HistoryStep::Suspend {
                seconds: self.time(),
            },
            0..5 => HistoryStep::Kill {
                role,
                effects: self.random.u8(..12),
            },
            5..7 => HistoryStep::Freeze {
                role,
                seconds: self.time(),
            },
            7 => HistoryStep::Restart { role },
            8 => HistoryStep::Stop {
                role,
                seconds: self.time(),
            },
            _ => HistoryStep::LoseSlots,
        }
    }

    fn life_of_a_service(&mut self) -> HistoryStep {
        let (service, side, seconds) = (self.service(), self.side(), self.time());
        match self.random.u8(..23) {
            20 => HistoryStep::LostAnswers {
                side,
                percent: self.random.u8(1..40),
                seconds,
            },
            21..23 => HistoryStep::Duplicates {
                service,
                percent: self.random.u8(1..40),
                seconds,
            },
            0..3 => HistoryStep::Down { service, seconds },
            3..8 => HistoryStep::Lossy {
                service,
                percent: self.random.u8(1..40),
                seconds,
            },
            8..10 => HistoryStep::Slow {
                service,
                millis: self.random.u32(10..5000),
                seconds,
            },
            10 => HistoryStep::DiskDown { side, seconds },
            11 => HistoryStep::ReadOnly { side, seconds },
            12..14 => HistoryStep::Full {
                side,
                free_bytes: self.random.u32(..2) * self.random.u32(..6000),
                seconds,
            },
            14 => HistoryStep::Clock {
                millis: self.random.i64(-7_200_000..7_200_000),
            },
            15 => HistoryStep::Reshard {
                shards: self.random.u8(1..4),
            },
            16 => HistoryStep::Purge { service },
            17 => match self.random.u8(..3) {
                0 => HistoryStep::RemakeAll,
                _ => HistoryStep::Remake { service },
            },
            _ => HistoryStep::Stall {
                longest_seconds: self.random.u32(1..100),
                seconds,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_shown_as_it_is_written_in_a_test() {
        let generated = History::generate(1, 0);
        let settings = SimSettings {
            on_restored: OnRestored::Delete,
            retention_minutes: 60,
            ..generated.settings
        };
        let history = History {
            seed: 1,
            settings,
            steps: vec![
                (
                    1,
                    HistoryStep::Down {
                        service: ServiceKind::Slots,
                        seconds: 2,
                    },
                ),
                (
                    2,
                    HistoryStep::Full {
                        side: Side::Source,
                        free_bytes: 0,
                        seconds: 3,
                    },
                ),
            ],
        };
        let shown = history.to_string();
        for part in [
            "format_version: FormatVersion::V1,",
            "on_restored: OnRestored::Delete,",
            "retention_minutes: 60 }",
            "(1, Down { service: ServiceKind::Slots, seconds: 2 })",
            "(2, Full { side: Side::Source, free_bytes: 0, seconds: 3 })",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn generated_histories_have_all_settings_in_all_combinations() {
        let settings = (1..=288).map(|seed| History::generate(seed, 0).settings);
        let combinations: std::collections::BTreeSet<_> = settings
            .map(|it| {
                let packing = (it.bundles, it.format_version.number());
                let sources = format!("{:?} {:?}", it.on_compressed, it.on_restored);
                (packing, sources, it.redrives, it.retention_minutes)
            })
            .collect();
        assert_eq!(combinations.len(), 96, "{combinations:?}");
    }
}
