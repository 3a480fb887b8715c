//! The schema's rules as the API server itself applies them, over the cases that the contract's own tests check offline:
//! a rule without a case fails there.

#[path = "../../../crds/tests/rules/cases.rs"]
mod cases;

use kube::api::{Api, DynamicObject, PostParams};
use serde_json::Value;

use self::cases::{change_cases, find, object, spec_cases};
use crate::support::{TestCluster, condition};

/// The server's answer to an object, in a dry run.
async fn answer(api: &Api<DynamicObject>, mut object: Value) -> Result<(), String> {
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("namespace");
    let object = serde_json::from_value(object).unwrap();
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match api.create(&params, &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 422 => Err(status.message.clone()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_accepts_what_keeps_a_rule_and_refuses_what_breaks_it_with_our_message() {
    let cluster = TestCluster::empty().await;
    let api = cluster.pipelines();
    for case in spec_cases() {
        let rule = find(case.field, case.rule);
        let about = format!("{}: {}", case.field, case.rule);
        assert_eq!(answer(&api, object(&case.keeps)).await, Ok(()), "{about}");
        let answer = answer(&api, object(&case.breaks)).await;
        match rule.cel {
            // What CEL cannot express is a condition.
            "" => assert_eq!(answer, Ok(()), "{about}"),
            _ => {
                let message = answer.expect_err(&about);
                let expected = format!("{}; {}", rule.rule, rule.help);
                assert!(message.contains(&expected), "{about}: {message}");
            }
        }
    }
    for (name, fits) in [
        ("a".repeat(50), true),
        ("a".repeat(51), false),
        ("shop.eu".into(), false),
    ] {
        let mut object = object(&Value::Object(Default::default()));
        object["metadata"]["name"] = name.clone().into();
        assert_eq!(answer(&api, object).await.is_ok(), fits, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_refuses_changes_that_would_leave_a_transport_behind() {
    let cluster = TestCluster::empty().await;
    for (number, (field, words, before, keeps, breaks)) in change_cases().into_iter().enumerate() {
        let name = format!("shop-{number}");
        let api = cluster.pipelines();
        let named = |spec: &Value| {
            let mut object = object(spec);
            object["metadata"] = serde_json::json!({"name": name});
            object
        };
        let made = serde_json::from_value(named(&before)).unwrap();
        api.create(&PostParams::default(), &made).await.unwrap();
        let replace = async |spec: &Value| {
            let mut object = named(spec);
            object["metadata"]["resourceVersion"] = api
                .get(&name)
                .await
                .unwrap()
                .metadata
                .resource_version
                .into();
            let params = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            api.replace(&name, &params, &serde_json::from_value(object).unwrap())
                .await
        };
        assert!(replace(&keeps).await.is_ok(), "{field}: {words}");
        let refused = replace(&breaks).await.expect_err(field).to_string();
        assert!(
            refused.contains(find(field, words).help),
            "{field}: {refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_cannot_refuse_is_a_condition_and_the_last_good_state_runs_on() {
    let cluster = TestCluster::new().await;
    let cases = spec_cases().into_iter();
    let cases = cases.filter(|case| find(case.field, case.rule).cel.is_empty());
    let checks = cases.map(async |case| {
        let name = format!(
            "bad-{}",
            case.field.rsplit('.').nth(1).unwrap().to_lowercase()
        );
        cluster.create(&name, serde_json::json!({})).await;
        cluster.settled(&name).await;
        let deployment = format!("{name}-compressor");
        cluster.until_made(&deployment).await;
        let before = cluster.generation(&deployment).await;
        cluster.edit(&name, case.breaks.clone()).await;
        let stalled = cluster
            .until(&name, "to be stalled", |pipeline| {
                condition(pipeline, "Stalled") == "True"
            })
            .await;
        let message = stalled["status"]["message"].as_str().unwrap();
        assert!(
            message.contains(case.field) && message.contains(find(case.field, case.rule).help),
            "{message}"
        );
        assert_eq!(
            cluster.generation(&deployment).await,
            before,
            "the workers run on as they were"
        );
    });
    futures::future::join_all(checks).await;
}
