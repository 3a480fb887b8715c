//! `streampress recover`: makes the manifests of the chunks queue anew from the stream.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use streampress_crds::api::pipeline::{CodecFormat, Ordering};
use streampress_crds::settings::CompressorSettings;
use tokio_util::sync::CancellationToken;

use super::advice::PipelineWords;
use super::args::RecoverArgs;
use super::role::RoleCommand;
use super::{output, runtime};
use crate::journal::{FileJournal, NoJournal};
use crate::roles::connect::Backend;
use crate::roles::context::RoleContext;
use crate::roles::earlier_state::LOST_IS_RECOVERED;
use crate::roles::recover::{Recovery, RecoveryOutcome, RecoveryReport};
use crate::telemetry::plain_log::printable;

pub(super) fn command(args: RecoverArgs) -> Result<ExitCode> {
    let role = RoleCommand::find(&args.pipeline)?;
    let settings = role.config.compressor()?;
    if settings.codec.format == CodecFormat::Seed {
        bail!(
            "records of the original's format do not say which file they hold: recover needs codec.format Hybrid; submit the files again instead"
        );
    }
    if args.gone && role.is_on_aws() {
        bail!(
            "--gone needs the destination of a data folder, and recover does not read one with --aws: submit the files again where their sources are"
        );
    }
    role.ensure_stream_exists()?;
    let report = runtime()?.block_on(async {
        role.ensure_database_is_whole().await?;
        let context = role.context(1, CancellationToken::new()).await?;
        let connections = context.backend.compressor(&settings).await?;
        let destination = match (&context.backend, role.config.decompressor()) {
            (Backend::Embedded(_), Ok(decompressor)) => {
                let location = &decompressor.destination.location;
                context.make_destination_once(location).await?;
                Some(context.destination_files(location)?)
            }
            // Elsewhere the destination itself keeps what was restored there.
            _ => None,
        };
        let recovery = Recovery {
            strict: settings.identity.ordering == Ordering::Strict,
            journal: journal(&context, &settings).await,
            stream: connections.stream,
            chunks_queue: connections.chunks_queue,
            record_bytes: settings.codec.record_bytes,
            destination,
            with_gone: args.gone,
            list_only: args.list,
        };
        let report = recovery.run().await?;
        if let (Backend::Embedded(_), false) = (&context.backend, args.list) {
            let now = crate::runtime::now_millis().to_string();
            context.journal.set(LOST_IS_RECOVERED, &now).await?;
        }
        anyhow::Ok(report)
    })?;
    print(&report, args.list, &role.words)?;
    Ok(match report.is_partial() {
        false => ExitCode::SUCCESS,
        true => ExitCode::FAILURE,
    })
}

/// What is known of restored files; nothing where the source is gone, or must not be read from here.
async fn journal(context: &RoleContext, settings: &CompressorSettings) -> Arc<dyn FileJournal> {
    let opened = async {
        let journal = context.source_journal(settings)?;
        journal
            .source(&settings.source.location.to_string(), "")
            .await?;
        anyhow::Ok(journal)
    };
    opened.await.unwrap_or_else(|error| {
        output::note(&format!(
            "the source's journal cannot be read, so that files which were restored and taken away since are sent again: {error:#}"
        ));
        Arc::new(NoJournal)
    })
}

fn print(report: &RecoveryReport, list_only: bool, words: &PipelineWords) -> Result<()> {
    let sent = if list_only { "to be sent" } else { "sent" };
    let (mut sent_count, mut restored, mut gone, mut incomplete, mut not_sent) = (0, 0, 0, 0, 0);
    for file in &report.files {
        let did = match &file.outcome {
            RecoveryOutcome::Sent => {
                sent_count += 1;
                sent.to_owned()
            }
            RecoveryOutcome::Restored => {
                restored += 1;
                "restored before".to_owned()
            }
            RecoveryOutcome::RestoredAndGone => {
                restored += 1;
                gone += 1;
                "restored before, and not at the destination any more".to_owned()
            }
            RecoveryOutcome::NotSent(cause) => {
                not_sent += 1;
                format!("not sent: {cause}")
            }
            RecoveryOutcome::Incomplete {
                cause,
                sent_earlier,
            } => {
                incomplete += 1;
                match sent_earlier {
                    true => format!("incomplete: {cause}; the version before it: {sent}"),
                    false => format!("incomplete: {cause}"),
                }
            }
        };
        let bundle = match file.others {
            0 => String::new(),
            others => format!(", packed with {others} other(s)"),
        };
        let line = format!("{}: {did} (version {}{bundle})", file.name, file.version);
        output::print(&format!("{}\n", printable(&line)))?;
    }
    let not_sent = match not_sent {
        0 => String::new(),
        count => format!(", {count} not sent"),
    };
    output::say(&format!(
        "{} file(s) in the stream: {sent_count} {sent} to the chunks queue, {restored} restored before, {incomplete} incomplete{not_sent}",
        report.files.len()
    ));
    if gone > 0 {
        output::say(&format!(
            "{gone} of those restored before are not at the destination any more; this sends them, too: {}",
            words.command("recover --gone")
        ));
    }
    for position in &report.damaged {
        output::say(&format!(
            "{position}: {} bytes are damaged; what they held is not recovered",
            position.bytes
        ));
    }
    if report.without_first > 0 {
        output::say(&format!(
            "{} packed file(s) or bundle(s) whose first record, which names them, is not in the stream any more",
            report.without_first
        ));
    }
    if report.undescribed > 0 {
        output::say(&format!(
            "{} packed file(s) or bundle(s) of an earlier release, whose records do not name them",
            report.undescribed
        ));
    }
    if report.of_original > 0 {
        output::say(&format!(
            "{} record(s) of the original's format, which do not say which file they hold",
            report.of_original
        ));
    }
    Ok(())
}
