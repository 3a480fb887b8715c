//! The contract of a provisioner.

use streampress_crds::Reason;
use streampress_crds::api::pipeline::{DeletionPolicy, TransportPolicy};
use streampress_crds::queue_check::{LAST_RESORT_RECEIVES, RedrivePolicy};
use streampress_crds::settings::QueueSettings;
use streampress_operator::transport::problem::{Problem, Retry};
use streampress_operator::transport::{Depths, ReadyTransport, RetentionPlan, TransportPlan};
use streampress_transport::Depth;

use crate::backends::{OTHERS, OURS, ProvisionerBackend, Resource, keys, names};

async fn provide(
    backend: &dyn ProvisionerBackend,
    plan: &TransportPlan,
) -> Result<ReadyTransport, Problem> {
    backend.provisioner().provide(plan, Some(&keys())).await
}

fn receipts(plan: &TransportPlan) -> &QueueSettings {
    plan.parts.receipts_queue.as_ref().expect("a queue")
}

async fn remove(
    backend: &dyn ProvisionerBackend,
    plan: &TransportPlan,
    policy: DeletionPolicy,
) -> Vec<String> {
    let keys = keys();
    let removed = backend.provisioner().remove(plan, policy, Some(&keys));
    removed.await.unwrap()
}

async fn depths(backend: &dyn ProvisionerBackend, plan: &TransportPlan) -> Depths {
    backend.provisioner().depths(plan, Some(&keys())).await
}

fn made(backend: &dyn ProvisionerBackend, name: &str) -> Resource {
    backend
        .resource(name)
        .unwrap_or_else(|| panic!("no {name}"))
}

pub async fn everything_is_created_as_specified_and_carries_our_tag(
    backend: &dyn ProvisionerBackend,
) {
    let plan = backend.plan(OURS);
    let ready = provide(backend, &plan).await.unwrap();
    for name in names(&plan) {
        assert_eq!(made(backend, &name).owner, OURS, "{name}");
    }
    for queue in plan.parts.queues() {
        let (made, dead) = (
            made(backend, &queue.name),
            made(backend, &queue.dead_letter_name),
        );
        assert!(made.is("FifoQueue", "true"), "{made:?}");
        assert!(dead.is("FifoQueue", "true"), "{dead:?}");
        let timeout = queue.visibility_timeout_seconds.to_string();
        assert!(made.is("VisibilityTimeout", &timeout), "{made:?}");
        let redrive = RedrivePolicy {
            target: backend.arn(&queue.dead_letter_name),
            max_receive_count: LAST_RESORT_RECEIVES,
        };
        assert_eq!(
            RedrivePolicy::parse(&made.attributes["RedrivePolicy"]),
            Some(redrive)
        );
        assert_eq!(dead.attributes.get("RedrivePolicy"), None);
    }
    let stream = made(backend, &plan.parts.stream.name);
    assert!(stream.is("OpenShardCount", "2"), "{stream:?}");
    assert!(stream.is("RetentionPeriodHours", "48"), "{stream:?}");
    assert_eq!(ready.retention_hours, Some(48));
    let status = ready.status;
    for (url, name) in [
        (status.files_queue_url, &plan.parts.files_queue.name),
        (status.chunks_queue_url, &plan.parts.chunks_queue.name),
        (status.receipts_queue_url, &receipts(&plan).name),
        (status.stream_arn, &plan.parts.stream.name),
    ] {
        assert!(url.is_some_and(|url| url.ends_with(&format!("/{name}"))));
    }
}

pub async fn creating_again_changes_nothing(backend: &dyn ProvisionerBackend) {
    let plan = backend.plan(OURS);
    let first = provide(backend, &plan).await.unwrap();
    let before = (backend.resources(&plan), backend.changes());
    assert_eq!(provide(backend, &plan).await.unwrap(), first);
    assert_eq!((backend.resources(&plan), backend.changes()), before);
}

pub async fn what_differs_is_corrected_in_what_is_ours(backend: &dyn ProvisionerBackend) {
    let mut plan = backend.plan(OURS);
    provide(backend, &plan).await.unwrap();
    plan.parts.chunks_queue.visibility_timeout_seconds = 77;
    // A message that waits may need what is older than the lower retention.
    for (hours, then) in [(72, "72"), (24, "72")] {
        plan.parts.stream.retention_hours = hours;
        provide(backend, &plan).await.unwrap();
        let stream = made(backend, &plan.parts.stream.name);
        assert!(stream.is("RetentionPeriodHours", then), "{stream:?}");
    }
    let chunks = made(backend, &plan.parts.chunks_queue.name);
    assert!(chunks.is("VisibilityTimeout", "77"), "{chunks:?}");
    let before = backend.changes();
    provide(backend, &plan).await.unwrap();
    assert_eq!(backend.changes(), before);
}

pub async fn a_retention_is_extended_for_what_waits_and_stays_until_it_is_to_be_lowered(
    backend: &dyn ProvisionerBackend,
) {
    let mut plan = backend.plan(OURS);
    provide(backend, &plan).await.unwrap();
    let of = |extend_to, lower_from| RetentionPlan {
        extend_to,
        lower_from,
    };
    for (retention, hours) in [
        (of(Some(96), None), 96),
        (of(Some(96), None), 96),
        (of(None, None), 96),
        // Others gave it these hours.
        (of(None, Some(72)), 96),
        (of(Some(72), None), 96),
    ] {
        plan.retention = retention;
        let ready = provide(backend, &plan).await.unwrap();
        assert_eq!(
            (ready.retention_hours, ready.not_extended),
            (Some(hours), None),
            "{retention:?}"
        );
        let stream = made(backend, &plan.parts.stream.name);
        assert!(
            stream.is("RetentionPeriodHours", &hours.to_string()),
            "{retention:?}: {stream:?}"
        );
    }
}

pub async fn what_was_deleted_is_created_again(backend: &dyn ProvisionerBackend) {
    let plan = backend.plan(OURS);
    provide(backend, &plan).await.unwrap();
    let before = backend.resources(&plan);
    for name in names(&plan) {
        backend.delete(&name);
        provide(backend, &plan).await.unwrap();
        assert_eq!(backend.resources(&plan), before, "{name}");
    }
}

pub async fn what_another_owner_has_is_refused_and_left_as_it_is(backend: &dyn ProvisionerBackend) {
    let plan = backend.plan(OURS);
    let stream = &plan.parts.stream.name;
    for (owner, name) in ["", OTHERS]
        .into_iter()
        .flat_map(|owner| names(&plan).into_iter().map(move |name| (owner, name)))
    {
        if name == *stream {
            backend.make_stream(&name, owner);
        } else {
            backend.make_queue(&name, owner, &[]);
        }
        let before = made(backend, &name);
        for _ in 0..2 {
            let problem = provide(backend, &plan).await.unwrap_err();
            assert_eq!(
                (problem.reason, problem.retry),
                (Reason::TransportNotOurs, Retry::AfterChange)
            );
            assert!(
                problem.message.starts_with(&format!("{name} exists and "))
                    && problem.message.contains("choose another name"),
                "{}",
                problem.message
            );
            // Adopted, it would be taken from its pipeline.
            let says_adopt = problem.message.contains("or set transport.policy to Adopt");
            assert_eq!(says_adopt, owner.is_empty(), "{}", problem.message);
            assert_eq!(
                problem.message.contains(OTHERS),
                owner == OTHERS,
                "{}",
                problem.message
            );
            assert_eq!(made(backend, &name), before);
        }
        let left = remove(backend, &plan, DeletionPolicy::Delete).await;
        assert_eq!(left, [format!("{name} does not carry this pipeline's tag")]);
        assert_eq!(made(backend, &name), before);
        assert_eq!(backend.resources(&plan).len(), 1);
        backend.delete(&name);
    }
}

pub async fn adopting_names_all_that_is_missing_and_creates_nothing(
    backend: &dyn ProvisionerBackend,
) {
    let plan = backend.adoption();
    let check = async |missing: &[String]| {
        let problem = provide(backend, &plan).await.unwrap_err();
        assert_eq!(
            (problem.reason, problem.retry),
            (Reason::TransportMissing, Retry::AfterChange)
        );
        let expected = format!("There is no {}: ", missing.join(", no "));
        assert!(
            problem.message.starts_with(&expected),
            "{}",
            problem.message
        );
        for remedy in ["streampress setup", "spec.transport", "policy Create"] {
            assert!(problem.message.contains(remedy), "{}", problem.message);
        }
        assert_eq!(backend.changes(), 0);
    };
    check(&names(&plan)).await;
    assert!(backend.resources(&plan).is_empty());
    backend.make_all(&plan);
    for name in names(&plan) {
        backend.delete(&name);
        check(std::slice::from_ref(&name)).await;
        for name in names(&plan) {
            if backend.resource(&name).is_some() {
                backend.delete(&name);
            }
        }
        backend.make_all(&plan);
    }
    provide(backend, &plan).await.unwrap();
}

pub async fn adopting_changes_nothing_even_where_it_differs(backend: &dyn ProvisionerBackend) {
    let mut plan = backend.adoption();
    backend.make_all(&plan);
    let before = backend.resources(&plan);
    plan.parts.files_queue.max_receive_count += 1;
    plan.parts.chunks_queue.visibility_timeout_seconds += 1;
    plan.retention.extend_to = Some(96);
    let ready = provide(backend, &plan).await.unwrap();
    assert_eq!((backend.resources(&plan), backend.changes()), (before, 0));
    assert_eq!(ready.retention_hours, Some(24));
    assert!(
        ready
            .status
            .stream_arn
            .is_some_and(|arn| arn.ends_with(&*plan.parts.stream.name))
    );
}

pub async fn a_pipeline_without_receipts_needs_no_queue_for_them(backend: &dyn ProvisionerBackend) {
    for policy in [TransportPolicy::Create, TransportPolicy::Adopt] {
        let mut plan = TransportPlan {
            policy,
            ..backend.plan(OURS)
        };
        let receipts = receipts(&plan).name.clone();
        plan.parts.receipts_queue = None;
        if policy == TransportPolicy::Adopt {
            names(&plan).iter().for_each(|name| backend.delete(name));
            backend.make_all(&plan);
        }
        let ready = provide(backend, &plan).await.unwrap();
        assert_eq!(ready.status.receipts_queue_url, None, "{policy:?}");
        assert!(backend.resource(&receipts).is_none(), "{policy:?}");
        let depths = depths(backend, &plan).await;
        assert!(depths.are_empty(), "{policy:?}: {depths:?}");
    }
}

pub async fn adopting_refuses_what_a_pipeline_cannot_work_with(backend: &dyn ProvisionerBackend) {
    let plan = backend.adoption();
    let queue = &plan.parts.files_queue;
    let (name, dead) = (&queue.name, &queue.dead_letter_name);
    backend.make_all(&plan);
    backend.make_queue("other-dlq.fifo", "", &[]);
    let wanted = backend.arn(dead);
    for (policy, words) in [
        (None, format!("set its RedrivePolicy to {dead}")),
        (
            Some(backend.redrive("other-dlq.fifo", 5)),
            format!("set deadLetterTargetArn to {wanted}"),
        ),
        (Some(backend.redrive(dead, 1)), "set at least 2".into()),
    ] {
        backend.delete(name);
        let attributes: Vec<_> = policy
            .iter()
            .map(|policy| ("RedrivePolicy", &**policy))
            .collect();
        backend.make_queue(name, "", &attributes);
        let problem = provide(backend, &plan).await.unwrap_err();
        assert_eq!(
            (problem.reason, problem.retry),
            (Reason::TransportUnfit, Retry::AfterChange)
        );
        assert!(
            problem.message.contains(&format!("{name}: ")) && problem.message.contains(&words),
            "{}",
            problem.message
        );
        assert!(!problem.message.contains("chunks"), "{}", problem.message);
    }
    // Corrected, it is adopted.
    backend.delete(name);
    let policy = backend.redrive(dead, 20);
    backend.make_queue(name, "", &[("RedrivePolicy", &policy)]);
    provide(backend, &plan).await.unwrap();

    let mut plain = plan.clone();
    plain.parts.chunks_queue.name = "plain".into();
    plain.parts.chunks_queue.dead_letter_name = "plain-dlq".into();
    backend.make_queue("plain-dlq", "", &[]);
    let policy = backend.redrive("plain-dlq", 20);
    backend.make_queue("plain", "", &[("RedrivePolicy", &policy)]);
    let problem = provide(backend, &plain).await.unwrap_err();
    assert!(
        problem.message.contains("plain: is not a FIFO queue"),
        "{}",
        problem.message
    );
    assert_eq!(backend.changes(), 0);
}

pub async fn adopting_refuses_what_carries_the_tag_of_another_pipeline_until_the_tag_is_gone(
    backend: &dyn ProvisionerBackend,
) {
    let plan = backend.adoption();
    backend.make_all(&plan);
    provide(backend, &plan).await.unwrap();
    let stream = &plan.parts.stream.name;
    for name in names(&plan) {
        let is_stream = name == *stream;
        let make = |owner: &str, attributes: &[(&str, &str)]| {
            backend.delete(&name);
            match is_stream {
                true => backend.make_stream(&name, owner),
                false => backend.make_queue(&name, owner, attributes),
            }
        };
        let before = made(backend, &name);
        let redrive = before.attributes.get("RedrivePolicy").cloned();
        let attributes: Vec<_> = redrive.iter().map(|it| ("RedrivePolicy", &**it)).collect();
        make(OTHERS, &attributes);
        let changes = backend.changes();
        let problem = provide(backend, &plan).await.unwrap_err();
        assert_eq!(
            (problem.reason, problem.retry),
            (Reason::TransportNotOurs, Retry::AfterChange)
        );
        for words in [
            &name,
            OTHERS,
            "other queues",
            "`aws ",
            "--tag-keys streampress.dev/uid streampress.dev/pipeline --region us-east-1",
            backend.endpoint(),
        ] {
            assert!(
                problem.message.contains(words),
                "{words}: {}",
                problem.message
            );
        }
        assert_eq!(backend.changes(), changes);
        make("", &attributes);
        provide(backend, &plan).await.unwrap();
    }
}

pub async fn depths_are_counted_and_a_missing_queue_is_not_zero(backend: &dyn ProvisionerBackend) {
    let plan = backend.plan(OURS);
    assert_eq!(depths(backend, &plan).await, Depths::default());
    provide(backend, &plan).await.unwrap();
    let visible = |visible| {
        Some(Depth {
            visible,
            ..Depth::default()
        })
    };
    let nothing = Depths {
        files: visible(0),
        chunks: visible(0),
        receipts: visible(0),
        dead: Some(0),
        dead_chunks: Some(0),
    };
    assert_eq!(depths(backend, &plan).await, nothing);
    let queues = plan.queues();
    for (messages, queue) in (1..).zip(&queues) {
        backend.fill(queue, messages);
    }
    let (files, chunks_dead) = (queues[0], queues[3]);
    let full = Depths {
        files: visible(1),
        chunks: visible(3),
        receipts: visible(5),
        dead: Some(2 + 4 + 6),
        dead_chunks: Some(4),
    };
    assert_eq!(depths(backend, &plan).await, full);
    backend.delete(chunks_dead);
    assert_eq!(
        depths(backend, &plan).await,
        Depths {
            dead: None,
            dead_chunks: None,
            ..full
        }
    );
    backend.delete(files);
    let half = Depths {
        files: None,
        dead: None,
        dead_chunks: None,
        ..full
    };
    assert_eq!(depths(backend, &plan).await, half);
}

pub async fn deleting_takes_what_is_ours_and_names_what_is_not(backend: &dyn ProvisionerBackend) {
    let plan = backend.plan(OURS);
    provide(backend, &plan).await.unwrap();
    backend.fill(&plan.parts.files_queue.name, 3);
    // A pipeline of the same name at another time: nothing of it is deleted.
    let others = TransportPlan {
        uid: OTHERS.into(),
        ..plan.clone()
    };
    let before = backend.resources(&plan);
    let left = remove(backend, &others, DeletionPolicy::Delete).await;
    assert_eq!(
        left,
        names(&plan)
            .iter()
            .map(|name| format!("{name} does not carry this pipeline's tag"))
            .collect::<Vec<_>>()
    );
    assert_eq!(backend.resources(&plan), before);
    let none = Vec::<String>::new();
    assert_eq!(remove(backend, &plan, DeletionPolicy::Delete).await, none);
    assert!(backend.resources(&plan).is_empty());
}

pub async fn deleting_again_finds_nothing(backend: &dyn ProvisionerBackend) {
    let plan = backend.plan(OURS);
    provide(backend, &plan).await.unwrap();
    // As when an operator ended between two calls.
    backend.delete(&plan.parts.files_queue.name);
    for _ in 0..2 {
        for policy in [DeletionPolicy::WhenEmpty, DeletionPolicy::Delete] {
            assert_eq!(remove(backend, &plan, policy).await, Vec::<String>::new());
            assert!(backend.resources(&plan).is_empty());
        }
    }
}

pub async fn retaining_leaves_all_and_names_each(backend: &dyn ProvisionerBackend) {
    let plan = backend.plan(OURS);
    provide(backend, &plan).await.unwrap();
    let before = (backend.resources(&plan), backend.changes());
    let left = remove(backend, &plan, DeletionPolicy::Retain).await;
    let kept = |name: &String| format!("{name} is kept by deletionPolicy Retain");
    assert_eq!(left, names(&plan).iter().map(kept).collect::<Vec<_>>());
    assert_eq!((backend.resources(&plan), backend.changes()), before);
}

pub async fn what_was_adopted_is_never_deleted(backend: &dyn ProvisionerBackend) {
    let plan = backend.adoption();
    backend.make_all(&plan);
    let before = backend.resources(&plan);
    for policy in [
        DeletionPolicy::Delete,
        DeletionPolicy::WhenEmpty,
        DeletionPolicy::Retain,
    ] {
        let left = remove(backend, &plan, policy).await;
        let kept = |name: &String| format!("{name} was adopted, and is never deleted");
        assert_eq!(left, names(&plan).iter().map(kept).collect::<Vec<_>>());
        assert_eq!(
            (backend.resources(&plan), backend.changes()),
            (before.clone(), 0)
        );
    }
}

pub async fn when_empty_deletes_what_is_empty(backend: &dyn ProvisionerBackend) {
    let plan = backend.plan(OURS);
    provide(backend, &plan).await.unwrap();
    let left = remove(backend, &plan, DeletionPolicy::WhenEmpty).await;
    assert_eq!(left, Vec::<String>::new());
    assert!(backend.resources(&plan).is_empty());
}

pub async fn when_empty_keeps_all_for_one_message_in_any_queue(backend: &dyn ProvisionerBackend) {
    let plan = backend.plan(OURS);
    let stream = &plan.parts.stream.name;
    for queue in plan.queues() {
        provide(backend, &plan).await.unwrap();
        backend.fill(queue, 1);
        let before = backend.resources(&plan);
        let left = remove(backend, &plan, DeletionPolicy::WhenEmpty).await;
        let expected = [
            format!("{queue} is not empty"),
            format!("the other queues and the stream {stream} are kept with it"),
        ];
        assert_eq!(left, expected);
        assert_eq!(backend.resources(&plan), before);
        backend.delete(queue);
    }
}
