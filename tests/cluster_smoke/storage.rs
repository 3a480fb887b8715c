//! A claim of the default storage class that several pods share: restricted pods cannot use hostPath.

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::{SOON, begin, one_shot};

#[test]
fn several_pods_share_one_claim_and_the_next_claim_finds_it_empty() -> Result<()> {
    let (cluster, ns) = begin("claim")?;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let mounted = |name: &str, script: &str| {
        let mut pod = one_shot(
            name,
            script,
            json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]}),
        );
        pod["spec"]["volumes"] =
            json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        pod.to_string()
    };
    cluster.apply(&ns.name, &claim.to_string())?;
    // Each waits for the other's file: they end only if both run at once and share the folder.
    let script = |own: &str, other: &str| {
        format!(
            "echo {own} >/data/{own}; until [ -s /data/{other} ]; do sleep 0.2; done; cat /data/{other}"
        )
    };
    cluster.apply(&ns.name, &mounted("one", &script("one", "two")))?;
    cluster.apply(&ns.name, &mounted("two", &script("two", "one")))?;
    ensure!(cluster.wait_pod_end(&ns.name, "one", SOON)? == (0, "two\n".into()));
    ensure!(cluster.wait_pod_end(&ns.name, "two", SOON)? == (0, "one\n".into()));

    let volume = cluster.get(&ns.name, "pvc/data")?["spec"]["volumeName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    cluster.kubectl(&["-n", &ns.name, "delete", "pod/one", "pod/two", "pvc/data"])?;
    cluster.wait_for(
        &ns.name,
        "the volume to be free again, or gone",
        SOON,
        || match cluster.find(&ns.name, &format!("pv/{volume}"))? {
            None => Ok(()),
            Some(pv) if pv["status"]["phase"] == "Available" => Ok(()),
            Some(pv) => bail!("volume {volume} is {}", pv["status"]),
        },
    )?;
    cluster.apply(&ns.name, &claim.to_string())?;
    cluster.apply(&ns.name, &mounted("next", "ls -A /data"))?;
    ensure!(
        cluster.wait_pod_end(&ns.name, "next", SOON)? == (0, String::new()),
        "the next claim found files of the last one"
    );
    Ok(())
}
