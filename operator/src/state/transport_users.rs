//! Which pipelines use which queues and streams. Two that used the same would take each other's messages, whatever their
//! policies: one of them is refused, and tried again when the other is gone.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use parking_lot::Mutex;
use streampress_crds::api::status::TransportStatus;
use streampress_crds::{CheckedPipeline, Reason, names};

use super::pipeline::{PipelineKey, WatchedPipeline};
use crate::transport::TransportPlan;
use crate::transport::problem::{Problem, Retry};

/// All pipelines, by their UID.
#[derive(Debug, Default)]
pub(crate) struct TransportUsers(Mutex<HashMap<String, TransportUser>>);

/// A pipeline, and the queues and the stream that it uses.
#[derive(Clone, Debug, PartialEq)]
struct TransportUser {
    key: PipelineKey,
    created: Option<Timestamp>,
    generation: Option<i64>,
    /// Its transport was looked up or made before: it keeps what it has.
    began: bool,
    region: String,
    endpoint: Option<String>,
    /// Namespace and name of the Secret with its keys; `None` for the operator's own identity.
    secret: Option<(String, String)>,
    /// Of queues, dead-letter queues and the stream.
    names: BTreeSet<String>,
    account: Option<String>,
    /// Its status says that these are not its own.
    is_refused: bool,
    /// Whether it may use them, as far as that was decided here.
    holds: Option<bool>,
}

/// What a pipeline may not use, since another one does.
#[derive(Debug, PartialEq)]
pub(crate) struct NamesInUse {
    by: PipelineKey,
    names: Vec<String>,
}

impl NamesInUse {
    /// For the refused pipeline's owner.
    pub(crate) fn problem(&self) -> Problem {
        let by = &self.by;
        Problem {
            reason: Reason::TransportNotOurs,
            message: format!(
                "The pipeline {by} uses {} already, and two pipelines would take each other's messages. Name other queues and another stream in a new pipeline, or delete {by}: this pipeline is then tried again.",
                self.names.join(", ")
            ),
            retry: Retry::AfterChange,
        }
    }
}

/// Where a pipeline's queues are: their common address, with region and account.
pub(crate) fn account(transport: &TransportStatus) -> Option<String> {
    let (account, _) = transport.files_queue_url.as_deref()?.rsplit_once('/')?;
    Some(account.to_owned())
}

impl TransportUsers {
    /// Takes in a pipeline as it was seen; the other pipelines for which that may change something.
    pub(crate) fn update(&self, pipeline: &WatchedPipeline) -> Vec<PipelineKey> {
        let mut users = self.0.lock();
        let before = users.remove(pipeline.uid());
        let user = TransportUser::of(pipeline, before.as_ref());
        let affected = match before == user.clone().into() {
            true => Vec::new(),
            false => sharing(&users, [before, Some(user.clone())]),
        };
        users.insert(pipeline.uid().to_owned(), user);
        affected
    }

    /// Forgets a pipeline that is gone; the others that used the same.
    pub(crate) fn remove(&self, uid: &str) -> Vec<PipelineKey> {
        let mut users = self.0.lock();
        let gone = users.remove(uid);
        sharing(&users, [gone, None])
    }

    /// Forgets all pipelines but these UIDs.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.0.lock().retain(|uid, _| exists(uid));
    }

    /// Lets a pipeline use its queues and stream, unless another one does that began before or is older. `account` is its
    /// own, where that is known: in another account the same names are other queues.
    pub(crate) fn take(&self, uid: &str, account: Option<&str>) -> Result<(), NamesInUse> {
        let mut users = self.0.lock();
        let Some(user) = users.get(uid) else {
            return Ok(());
        };
        let others = users
            .iter()
            .filter(|(other, it)| *other != uid && it.is_in_the_way() && it.order() < user.order())
            .filter(|(_, it)| it.shares_with(user) && it.may_be_in(account, user));
        let in_use = others
            .min_by_key(|(_, it)| it.order())
            .map(|(_, other)| NamesInUse {
                by: other.key.clone(),
                names: other.names.intersection(&user.names).cloned().collect(),
            });
        if let Some(user) = users.get_mut(uid) {
            user.began |= in_use.is_none();
            user.holds = Some(in_use.is_none());
        }
        in_use.map_or(Ok(()), Err)
    }

    /// A pipeline was refused what it names for another reason: it uses none of it.
    pub(crate) fn release(&self, uid: &str) {
        if let Some(user) = self.0.lock().get_mut(uid) {
            user.holds = Some(false);
        }
    }
}

/// Whether its status says that its queues or its stream are another pipeline's.
fn is_refused(pipeline: &WatchedPipeline) -> bool {
    let conditions = pipeline.status().conditions;
    let not_ours = Reason::TransportNotOurs.as_str();
    conditions
        .iter()
        .any(|it| it.type_ == "TransportReady" && it.status == "False" && it.reason == not_ours)
}

fn sharing(
    users: &HashMap<String, TransportUser>,
    with: [Option<TransportUser>; 2],
) -> Vec<PipelineKey> {
    let shares = |user: &&TransportUser| with.iter().flatten().any(|it| it.shares_with(user));
    let sharing = users.values().filter(shares);
    sharing.map(|user| user.key.clone()).collect()
}

impl TransportUser {
    fn of(pipeline: &WatchedPipeline, before: Option<&Self>) -> Self {
        let meta = pipeline.meta();
        let transport = pipeline.status().transport;
        let known = before.filter(|it| it.generation == meta.generation);
        let plan = match known {
            Some(known) => known.clone(),
            None => Self::planned(pipeline)
                // What ran before keeps running while the spec is invalid.
                .or_else(|| before.cloned())
                .unwrap_or_else(|| Self::noted(pipeline)),
        };
        Self {
            key: pipeline.key(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            generation: meta.generation,
            began: before.is_some_and(|it| it.began)
                || pipeline.has_finalizer()
                || transport.is_some(),
            account: transport
                .as_ref()
                .and_then(account)
                .or_else(|| before?.account.clone()),
            is_refused: is_refused(pipeline),
            holds: before.and_then(|it| it.holds),
            ..plan
        }
    }

    /// What a valid spec names.
    fn planned(pipeline: &WatchedPipeline) -> Option<Self> {
        let checked = CheckedPipeline::in_cluster(pipeline.read().ok()?.clone()).ok()?;
        let plan = TransportPlan::of(checked.pipeline(), checked.resolved());
        let names = plan.parts.queue_names().chain([&*plan.parts.stream.name]);
        Some(Self {
            names: names.map(str::to_owned).collect(),
            ..Self::at(pipeline, plan.region, plan.endpoint, plan.secret)
        })
    }

    /// What the status names, where the spec is of no use.
    fn noted(pipeline: &WatchedPipeline) -> Self {
        let status = pipeline.status().transport.unwrap_or_default();
        let name = |address: String| address.rsplit('/').next().map(str::to_owned);
        let queues = [
            status.files_queue_url,
            status.chunks_queue_url,
            status.receipts_queue_url,
        ];
        let queues = queues.into_iter().flatten().filter_map(name);
        let queues = queues.flat_map(|name| [names::dead_letter_queue(&name), name]);
        let aws = pipeline.read().map(|read| read.spec.aws.clone());
        let aws = aws.unwrap_or_default();
        let secret = aws.credentials_secret_ref.map(|secret| secret.name);
        Self {
            names: queues.chain(status.stream_arn.and_then(name)).collect(),
            ..Self::at(pipeline, aws.region, aws.endpoint_url, secret)
        }
    }

    fn at(
        pipeline: &WatchedPipeline,
        region: String,
        endpoint: Option<String>,
        secret: Option<String>,
    ) -> Self {
        let key = pipeline.key();
        Self {
            created: None,
            generation: None,
            began: false,
            region,
            endpoint: endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
            secret: secret.map(|name| (key.namespace.to_string(), name)),
            names: BTreeSet::new(),
            account: None,
            is_refused: false,
            holds: None,
            key,
        }
    }

    /// Of two that use the same, the one that began keeps it, else the older one. Two that were made in the same second are
    /// told apart by their names.
    fn order(&self) -> (bool, Option<Timestamp>, &str, &str) {
        let PipelineKey { namespace, name } = &self.key;
        (!self.began, self.created, namespace, name)
    }

    /// One that is refused itself is not.
    fn is_in_the_way(&self) -> bool {
        self.holds.unwrap_or(!self.is_refused)
    }

    fn shares_with(&self, other: &Self) -> bool {
        self.region == other.region
            && self.endpoint == other.endpoint
            && !self.names.is_disjoint(&other.names)
    }

    /// Whether its queues may be in the account of another pipeline: other keys may be those of another account.
    fn may_be_in(&self, account: Option<&str>, other: &Self) -> bool {
        self.secret == other.secret
            || match (&self.account, account) {
                (None, _) => true,
                (Some(own), Some(account)) => own == account,
                // It is compared when that one has been looked up, before it gets a worker.
                (Some(_), None) => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Adopts queues and a stream; made in the given second.
    fn adopting(name: &str, second: u32, more: &Value) -> WatchedPipeline {
        let mut object = json!({
            "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline",
            "metadata": {
                "name": name, "namespace": "n", "uid": name, "generation": 1,
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            },
            "spec": {
                "transport": {
                    "policy": "Adopt", "filesQueue": {"name": "a.fifo"},
                    "chunksQueue": {"name": "b.fifo"}, "stream": {"name": "s"},
                },
                "volume": {"persistentVolumeClaim": {"claimName": "files"}},
            },
        });
        merge(&mut object, more);
        serde_json::from_value(object).expect("an object")
    }

    fn merge(object: &mut Value, more: &Value) {
        match more.as_object() {
            Some(fields) => fields
                .iter()
                .for_each(|(name, more)| merge(&mut object[name], more)),
            None => *object = more.clone(),
        }
    }

    /// That of a pipeline whose queues are another one's.
    fn refused_status() -> Value {
        json!({"status": {"conditions": [{
            "type": "TransportReady", "status": "False", "reason": "TransportNotOurs",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}})
    }

    fn seen(pipelines: &[&WatchedPipeline]) -> TransportUsers {
        let users = TransportUsers::default();
        for pipeline in pipelines {
            users.update(pipeline);
        }
        users
    }

    fn refused(users: &TransportUsers, uid: &str, account: Option<&str>) -> Option<String> {
        let refused = users.take(uid, account).err();
        refused.map(|in_use| in_use.by.to_string())
    }

    #[test]
    fn of_two_pipelines_that_name_the_same_queues_the_older_keeps_them_until_it_is_gone() {
        for (first, second) in [("x", "y"), ("y", "x")] {
            let older = adopting(first, 1, &json!({}));
            let younger = adopting(second, 2, &json!({}));
            let users = seen(&[&younger, &older]);
            let by = format!("n/{first}");
            assert_eq!(refused(&users, second, None), Some(by.clone()));
            assert_eq!(refused(&users, first, None), None);
            let message = users.take(second, None).expect_err("in use").problem();
            assert!(
                message.message.starts_with(&format!(
                    "The pipeline {by} uses a-dlq.fifo, a.fifo, b-dlq.fifo, b.fifo, s already"
                )),
                "{}",
                message.message
            );
            let tried_again = users.remove(first);
            assert_eq!(tried_again, [younger.key()]);
            assert_eq!(refused(&users, second, None), None);
        }
    }

    #[test]
    fn of_two_that_were_made_in_the_same_second_the_one_that_began_keeps_them() {
        let (x, y) = (adopting("x", 1, &json!({})), adopting("y", 1, &json!({})));
        let users = seen(&[&y]);
        assert_eq!(refused(&users, "y", None), None);
        users.update(&x);
        assert_eq!(refused(&users, "x", None), Some("n/y".into()));
        assert_eq!(refused(&users, "y", None), None);
        // Where neither began, their names decide.
        let users = seen(&[&y, &x]);
        assert_eq!(refused(&users, "y", None), Some("n/x".into()));
    }

    #[test]
    fn a_pipeline_that_is_refused_itself_is_in_the_way_of_no_other() {
        let refused_one = refused_status();
        let younger = adopting("y", 2, &json!({}));
        let users = seen(&[&adopting("x", 1, &json!({})), &younger]);
        assert_eq!(refused(&users, "y", None), Some("n/x".into()));
        let tried_again = users.update(&adopting("x", 1, &refused_one));
        assert_eq!(tried_again, [younger.key()]);
        assert_eq!(refused(&users, "y", None), None);
        // It has begun meanwhile.
        users.update(&adopting("x", 1, &json!({})));
        assert_eq!(refused(&users, "x", None), Some("n/y".into()));
        // What is decided here comes before what a status still says.
        users.update(&adopting("y", 2, &refused_one));
        assert_eq!(refused(&users, "x", None), Some("n/y".into()));
        users.release("y");
        assert_eq!(refused(&users, "x", None), None);
    }

    #[test]
    fn of_those_that_waited_for_one_that_is_gone_exactly_one_follows() {
        let waiting = refused_status();
        let (x, y) = (adopting("x", 1, &waiting), adopting("y", 2, &waiting));
        let users = seen(&[&x, &y]);
        assert_eq!(refused(&users, "y", None), None);
        assert_eq!(refused(&users, "x", None), Some("n/y".into()));
        users.update(&y);
        assert_eq!(refused(&users, "x", None), Some("n/y".into()));
    }

    #[test]
    fn one_name_in_common_suffices_and_another_region_or_endpoint_is_another_queue() {
        let older = adopting("x", 1, &json!({}));
        let other = json!({"filesQueue": {"name": "c.fifo"}, "stream": {"name": "t"}});
        let one = adopting("y", 2, &json!({"spec": {"transport": other}}));
        assert_eq!(
            refused(&seen(&[&older, &one]), "y", None),
            Some("n/x".into())
        );
        for aws in [
            json!({"region": "eu-west-1"}),
            json!({"endpointURL": "http://localstack:4566"}),
        ] {
            let elsewhere = adopting("y", 2, &json!({"spec": {"aws": aws}}));
            assert_eq!(refused(&seen(&[&older, &elsewhere]), "y", None), None);
        }
        let at = |name, second, url: &str| {
            adopting(
                name,
                second,
                &json!({"spec": {"aws": {"endpointURL": url}}}),
            )
        };
        let users = seen(&[&at("x", 1, "http://aws"), &at("y", 2, "http://aws/")]);
        assert_eq!(refused(&users, "y", None), Some("n/x".into()));
    }

    #[test]
    fn keys_of_another_account_lead_to_other_queues_once_both_accounts_are_known() {
        let with = |secret: &str| json!({"aws": {"credentialsSecretRef": {"name": secret}}});
        let status = json!({"transport": {"filesQueueURL": "https://sqs/111/a.fifo"}});
        let unknown = adopting("x", 1, &json!({"spec": with("one")}));
        let known = adopting("x", 1, &json!({"spec": with("one"), "status": status}));
        let younger = adopting("y", 2, &json!({"spec": with("two")}));
        let by = Some("n/x".to_owned());
        assert_eq!(refused(&seen(&[&unknown, &younger]), "y", None), by);
        let users = seen(&[&unknown, &younger]);
        assert_eq!(users.update(&known), [younger.key()]);
        assert_eq!(refused(&users, "y", None), None);
        assert_eq!(refused(&users, "y", Some("https://sqs/222")), None);
        assert_eq!(refused(&users, "y", Some("https://sqs/111")), by);
    }

    #[test]
    fn a_pipeline_whose_spec_is_invalid_keeps_what_it_uses() {
        let status = json!({"transport": {
            "filesQueueURL": "https://sqs/1/a.fifo", "streamARN": "arn:aws:kinesis:us-east-1:1:stream/s",
        }});
        let invalid = json!({"metadata": {"generation": 2}, "spec": {"source": {"location": "?"}}});
        let mut noted = invalid.clone();
        noted["status"] = status;
        let younger = adopting("y", 2, &json!({}));
        let valid = adopting("x", 1, &json!({}));
        for older in [
            vec![&valid, &adopting("x", 1, &invalid)],
            vec![&adopting("x", 1, &noted)],
        ] {
            let users = seen(&older);
            users.update(&younger);
            assert_eq!(refused(&users, "y", None), Some("n/x".into()));
        }
    }
}
