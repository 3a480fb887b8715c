//! What both sides keep to.

use streampress_crds::api::pipeline::DeletionPolicy;
use streampress_crds::api::status::TransportStatus;
use streampress_crds::queue_check::RedrivePolicy;
use streampress_operator::decide::status::Trouble;
use streampress_operator::transport::{Depths, Plan};
use streampress_transport::Depth;

use crate::sides::{OTHERS, OURS, Part, Side, keys, names};

async fn provide(side: &dyn Side, plan: &Plan) -> Result<TransportStatus, Trouble> {
    side.provisioner().provide(plan, Some(&keys())).await
}

async fn remove(side: &dyn Side, plan: &Plan, policy: DeletionPolicy) -> Vec<String> {
    let keys = keys();
    let removed = side.provisioner().remove(plan, policy, Some(&keys));
    removed.await.unwrap()
}

async fn depths(side: &dyn Side, plan: &Plan) -> Depths {
    side.provisioner().depths(plan, Some(&keys())).await
}

fn made(side: &dyn Side, name: &str) -> Part {
    side.part(name).unwrap_or_else(|| panic!("no {name}"))
}

pub async fn all_parts_are_made_as_specified_and_carry_our_tag(side: &dyn Side) {
    let plan = side.plan(OURS);
    let status = provide(side, &plan).await.unwrap();
    for name in names(&plan) {
        assert_eq!(made(side, &name).owner, OURS, "{name}");
    }
    for queue in [&plan.parts.files_queue, &plan.parts.chunks_queue] {
        let (made, dead) = (made(side, &queue.name), made(side, &queue.dead_letter_name));
        assert!(made.is("FifoQueue", "true"), "{made:?}");
        assert!(dead.is("FifoQueue", "true"), "{dead:?}");
        let hiding = queue.visibility_timeout_seconds.to_string();
        assert!(made.is("VisibilityTimeout", &hiding), "{made:?}");
        let redrive = RedrivePolicy {
            target: side.arn(&queue.dead_letter_name),
            max_receive_count: queue.max_receive_count,
        };
        assert_eq!(
            RedrivePolicy::parse(&made.attributes["RedrivePolicy"]),
            Some(redrive)
        );
        assert_eq!(dead.attributes.get("RedrivePolicy"), None);
    }
    let stream = made(side, &plan.parts.stream.name);
    assert!(stream.is("OpenShardCount", "2"), "{stream:?}");
    assert!(stream.is("RetentionPeriodHours", "48"), "{stream:?}");
    for (told, name) in [
        (status.files_queue_url, &plan.parts.files_queue.name),
        (status.chunks_queue_url, &plan.parts.chunks_queue.name),
        (status.stream_arn, &plan.parts.stream.name),
    ] {
        assert!(told.is_some_and(|told| told.ends_with(&format!("/{name}"))));
    }
}

pub async fn making_again_changes_nothing(side: &dyn Side) {
    let plan = side.plan(OURS);
    let first = provide(side, &plan).await.unwrap();
    let before = (side.parts(&plan), side.changes());
    assert_eq!(provide(side, &plan).await.unwrap(), first);
    assert_eq!((side.parts(&plan), side.changes()), before);
}

pub async fn what_differs_is_put_right_in_what_is_ours(side: &dyn Side) {
    let mut plan = side.plan(OURS);
    provide(side, &plan).await.unwrap();
    plan.parts.files_queue.max_receive_count = 7;
    plan.parts.chunks_queue.visibility_timeout_seconds = 77;
    for hours in [72, 24] {
        plan.parts.stream.retention_hours = hours;
        provide(side, &plan).await.unwrap();
        let stream = made(side, &plan.parts.stream.name);
        assert!(
            stream.is("RetentionPeriodHours", &hours.to_string()),
            "{stream:?}"
        );
    }
    let files = made(side, &plan.parts.files_queue.name);
    let redrive = RedrivePolicy::parse(&files.attributes["RedrivePolicy"]).unwrap();
    assert_eq!(redrive.max_receive_count, 7);
    let chunks = made(side, &plan.parts.chunks_queue.name);
    assert!(chunks.is("VisibilityTimeout", "77"), "{chunks:?}");
    let before = side.changes();
    provide(side, &plan).await.unwrap();
    assert_eq!(side.changes(), before);
}

pub async fn what_was_taken_away_is_made_anew(side: &dyn Side) {
    let plan = side.plan(OURS);
    provide(side, &plan).await.unwrap();
    let before = side.parts(&plan);
    for name in names(&plan) {
        side.delete(&name);
        provide(side, &plan).await.unwrap();
        assert_eq!(side.parts(&plan), before, "{name}");
    }
}

pub async fn what_is_somebody_elses_is_refused_and_left_as_it_is(side: &dyn Side) {
    let plan = side.plan(OURS);
    let stream = &plan.parts.stream.name;
    for (owner, name) in ["", OTHERS]
        .into_iter()
        .flat_map(|owner| names(&plan).into_iter().map(move |name| (owner, name)))
    {
        if name == *stream {
            side.make_stream(&name, owner);
        } else {
            side.make_queue(&name, owner, &[]);
        }
        let before = made(side, &name);
        for _ in 0..2 {
            let trouble = provide(side, &plan).await.unwrap_err();
            assert_eq!(
                (&*trouble.reason, trouble.lasting),
                ("TransportNotOurs", true)
            );
            assert!(
                trouble
                    .message
                    .starts_with(&format!("{name} is there and "))
                    && trouble.message.contains("choose another name"),
                "{}",
                trouble.message
            );
            assert_eq!(made(side, &name), before);
        }
        let left = remove(side, &plan, DeletionPolicy::Delete).await;
        assert_eq!(left, [format!("{name} does not carry this pipeline's tag")]);
        assert_eq!(made(side, &name), before);
        assert_eq!(side.parts(&plan).len(), 1);
        side.delete(&name);
    }
}

pub async fn adopting_names_all_that_is_missing_and_makes_nothing(side: &dyn Side) {
    let plan = side.adoption();
    let check = async |missing: &[String]| {
        let trouble = provide(side, &plan).await.unwrap_err();
        assert_eq!(
            (&*trouble.reason, trouble.lasting),
            ("TransportMissing", true)
        );
        let told = format!("There is no {}: ", missing.join(", no "));
        assert!(trouble.message.starts_with(&told), "{}", trouble.message);
        for way_out in ["streampress setup", "spec.transport", "policy Create"] {
            assert!(trouble.message.contains(way_out), "{}", trouble.message);
        }
        assert_eq!(side.changes(), 0);
    };
    check(&names(&plan)).await;
    assert!(side.parts(&plan).is_empty());
    side.make_all(&plan);
    for name in names(&plan) {
        side.delete(&name);
        check(std::slice::from_ref(&name)).await;
        for name in names(&plan) {
            if side.part(&name).is_some() {
                side.delete(&name);
            }
        }
        side.make_all(&plan);
    }
    provide(side, &plan).await.unwrap();
}

pub async fn adopting_changes_nothing_even_where_it_differs(side: &dyn Side) {
    let mut plan = side.adoption();
    side.make_all(&plan);
    let before = side.parts(&plan);
    plan.parts.files_queue.max_receive_count += 1;
    plan.parts.chunks_queue.visibility_timeout_seconds += 1;
    let status = provide(side, &plan).await.unwrap();
    assert_eq!((side.parts(&plan), side.changes()), (before, 0));
    assert!(
        status
            .stream_arn
            .is_some_and(|arn| arn.ends_with(&*plan.parts.stream.name))
    );
}

pub async fn adopting_refuses_what_a_pipeline_cannot_work_with(side: &dyn Side) {
    let plan = side.adoption();
    let queue = &plan.parts.files_queue;
    let (name, dead) = (&queue.name, &queue.dead_letter_name);
    side.make_all(&plan);
    side.make_queue("other-dlq.fifo", "", &[]);
    let wanted = side.arn(dead);
    for (policy, words) in [
        (None, format!("set its RedrivePolicy to {dead}")),
        (
            Some(side.redrive("other-dlq.fifo", 5)),
            format!("set deadLetterTargetArn to {wanted}"),
        ),
        (Some(side.redrive(dead, 1)), "set at least 2".into()),
    ] {
        side.delete(name);
        let attributes: Vec<_> = policy
            .iter()
            .map(|policy| ("RedrivePolicy", &**policy))
            .collect();
        side.make_queue(name, "", &attributes);
        let trouble = provide(side, &plan).await.unwrap_err();
        assert_eq!(
            (&*trouble.reason, trouble.lasting),
            ("TransportUnfit", true)
        );
        assert!(
            trouble.message.contains(&format!("{name}: ")) && trouble.message.contains(&words),
            "{}",
            trouble.message
        );
        assert!(!trouble.message.contains("chunks"), "{}", trouble.message);
    }
    // Mended, it is taken without more ado.
    side.delete(name);
    let policy = side.redrive(dead, 20);
    side.make_queue(name, "", &[("RedrivePolicy", &policy)]);
    provide(side, &plan).await.unwrap();

    let mut plain = plan.clone();
    plain.parts.chunks_queue.name = "plain".into();
    plain.parts.chunks_queue.dead_letter_name = "plain-dlq".into();
    side.make_queue("plain-dlq", "", &[]);
    let policy = side.redrive("plain-dlq", 20);
    side.make_queue("plain", "", &[("RedrivePolicy", &policy)]);
    let trouble = provide(side, &plain).await.unwrap_err();
    assert!(
        trouble.message.contains("plain: is not a FIFO queue"),
        "{}",
        trouble.message
    );
    assert_eq!(side.changes(), 0);
}

pub async fn depths_are_counted_and_what_is_not_there_is_not_zero(side: &dyn Side) {
    let plan = side.plan(OURS);
    assert_eq!(depths(side, &plan).await, Depths::default());
    provide(side, &plan).await.unwrap();
    let visible = |visible| {
        Some(Depth {
            visible,
            ..Depth::default()
        })
    };
    let nothing = Depths {
        files: visible(0),
        chunks: visible(0),
        dead: Some(0),
    };
    assert_eq!(depths(side, &plan).await, nothing);
    let [files, files_dead, chunks, chunks_dead] = plan.queues();
    for (messages, queue) in (1..).zip([files, files_dead, chunks, chunks_dead]) {
        side.fill(queue, messages);
    }
    let full = Depths {
        files: visible(1),
        chunks: visible(3),
        dead: Some(2 + 4),
    };
    assert_eq!(depths(side, &plan).await, full);
    side.delete(chunks_dead);
    assert_eq!(depths(side, &plan).await, Depths { dead: None, ..full });
    side.delete(files);
    let half = Depths {
        files: None,
        dead: None,
        ..full
    };
    assert_eq!(depths(side, &plan).await, half);
}

pub async fn deleting_takes_what_is_ours_and_names_what_is_not(side: &dyn Side) {
    let plan = side.plan(OURS);
    provide(side, &plan).await.unwrap();
    side.fill(&plan.parts.files_queue.name, 3);
    // Of the same names and of another time: nothing of it goes.
    let others = Plan {
        uid: OTHERS.into(),
        ..plan.clone()
    };
    let before = side.parts(&plan);
    let left = remove(side, &others, DeletionPolicy::Delete).await;
    assert_eq!(
        left,
        names(&plan)
            .iter()
            .map(|name| format!("{name} does not carry this pipeline's tag"))
            .collect::<Vec<_>>()
    );
    assert_eq!(side.parts(&plan), before);
    let none = Vec::<String>::new();
    assert_eq!(remove(side, &plan, DeletionPolicy::Delete).await, none);
    assert!(side.parts(&plan).is_empty());
}

pub async fn deleting_again_finds_nothing(side: &dyn Side) {
    let plan = side.plan(OURS);
    provide(side, &plan).await.unwrap();
    // As when an operator ended half-way.
    side.delete(&plan.parts.files_queue.name);
    for _ in 0..2 {
        for policy in [DeletionPolicy::WhenEmpty, DeletionPolicy::Delete] {
            assert_eq!(remove(side, &plan, policy).await, Vec::<String>::new());
            assert!(side.parts(&plan).is_empty());
        }
    }
}

pub async fn retaining_leaves_all_and_names_each(side: &dyn Side) {
    let plan = side.plan(OURS);
    provide(side, &plan).await.unwrap();
    let before = (side.parts(&plan), side.changes());
    let left = remove(side, &plan, DeletionPolicy::Retain).await;
    let kept = |name: &String| format!("{name} is kept by deletionPolicy Retain");
    assert_eq!(left, names(&plan).iter().map(kept).collect::<Vec<_>>());
    assert_eq!((side.parts(&plan), side.changes()), before);
}

pub async fn what_was_adopted_is_never_deleted(side: &dyn Side) {
    let plan = side.adoption();
    side.make_all(&plan);
    let before = side.parts(&plan);
    for policy in [
        DeletionPolicy::Delete,
        DeletionPolicy::WhenEmpty,
        DeletionPolicy::Retain,
    ] {
        let left = remove(side, &plan, policy).await;
        let kept = |name: &String| format!("{name} was adopted, and is never deleted");
        assert_eq!(left, names(&plan).iter().map(kept).collect::<Vec<_>>());
        assert_eq!((side.parts(&plan), side.changes()), (before.clone(), 0));
    }
}

pub async fn when_empty_deletes_what_is_empty(side: &dyn Side) {
    let plan = side.plan(OURS);
    provide(side, &plan).await.unwrap();
    let left = remove(side, &plan, DeletionPolicy::WhenEmpty).await;
    assert_eq!(left, Vec::<String>::new());
    assert!(side.parts(&plan).is_empty());
}

pub async fn when_empty_keeps_all_for_one_message_in_any_queue(side: &dyn Side) {
    let plan = side.plan(OURS);
    let stream = &plan.parts.stream.name;
    for queue in plan.queues() {
        provide(side, &plan).await.unwrap();
        side.fill(queue, 1);
        let before = side.parts(&plan);
        let left = remove(side, &plan, DeletionPolicy::WhenEmpty).await;
        let told = [
            format!("{queue} is not empty"),
            format!("the other queues and the stream {stream} are kept with it"),
        ];
        assert_eq!(left, told);
        assert_eq!(side.parts(&plan), before);
        side.delete(queue);
    }
}
