use streampress_crds::{DeadLetterReason, Reason};

use crate::{code, table};

pub fn page() -> String {
    let head = ["reason", "means", "remedy"];
    let dead = DeadLetterReason::ALL
        .iter()
        .map(|reason| (reason.as_str(), reason.meaning(), reason.remedy()));
    let pipeline = Reason::ALL
        .iter()
        .map(|reason| (reason.as_str(), reason.meaning(), reason.remedy()));
    let row = |(reason, meaning, remedy): (&str, &str, &str)| {
        vec![code(reason), meaning.to_owned(), remedy.to_owned()]
    };
    format!(
        "## Of dead letters\n\nWhy a message is in a dead-letter queue. The reason is the message attribute `streampress-reason` and the \
         label `reason` of `streampress_messages_dead_total`; the attribute `streampress-detail` has the details. \
         `streampress redrive --list` shows both.\n\n{}\n## Of conditions and Events\n\nWhy a condition of a pipeline is as it is; the \
         message beside it has the details. Events have the same reasons.\n\n{}",
        table(&head, dead.map(row)),
        table(&head, pipeline.map(row)),
    )
}
