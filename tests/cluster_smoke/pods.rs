//! What the node enforces on a container: security context, limits, restarts.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{SOON, begin, one_shot, pod, pod_spec};

#[test]
fn a_restricted_pod_has_no_root_no_capabilities_and_a_read_only_root() -> Result<()> {
    let (cluster, ns) = begin("restricted")?;
    let script =
        "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; touch /x";
    cluster.apply(&ns.name, &one_shot("looks", script, json!({})).to_string())?;
    let (code, log) = cluster.wait_pod_end(&ns.name, "looks", SOON)?;
    for line in [
        "65532",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        ensure!(
            log.lines().any(|l| l == line),
            "no line {line:?} in:\n{log}"
        );
    }
    ensure!(
        code != 0 && log.contains("Read-only file system"),
        "writing to the root gave exit code {code} and:\n{log}"
    );
    Ok(())
}

#[test]
fn a_pod_that_violates_restricted_is_refused() -> Result<()> {
    let (cluster, ns) = begin("refused")?;
    let greedy = one_shot(
        "greedy",
        "true",
        json!({"securityContext": {"privileged": true}}),
    );
    let error = cluster
        .apply(&ns.name, &greedy.to_string())
        .expect_err("privileged pods are against the level");
    ensure!(
        format!("{error:#}").contains("violates PodSecurity \"restricted"),
        "{error:#}"
    );
    Ok(())
}

#[test]
fn a_container_above_its_memory_limit_is_killed() -> Result<()> {
    let (cluster, ns) = begin("memory")?;
    let limit = json!({"resources": {"limits": {"memory": "32Mi"}}});
    cluster.apply(
        &ns.name,
        &one_shot(
            "eater",
            "dd if=/dev/zero of=/dev/null bs=256M count=1",
            limit,
        )
        .to_string(),
    )?;
    let ended = cluster.wait_for(&ns.name, "the eater to be killed", SOON, || {
        let eater = cluster.get(&ns.name, "pod/eater")?;
        eater
            .pointer("/status/containerStatuses/0/state/terminated")
            .cloned()
            .with_context(|| format!("its status is {}", eater["status"]))
    })?;
    // The exit code is 137 whether dd or the whole container was killed; the reason is OOMKilled.
    ensure!(ended["reason"] == "OOMKilled", "it ended with {ended}");
    Ok(())
}

#[test]
fn a_container_above_its_cpu_limit_is_throttled() -> Result<()> {
    let (cluster, ns) = begin("processor")?;
    // It spins until it was throttled five times: how long that takes depends on the machine's load.
    let script = "stat() { cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null; }; \
         end=$(($(date +%s) + 60)); while [ $(date +%s) -lt $end ] && [ \"$(stat | sed -n 's/^nr_throttled //p')\" -lt 5 ]; do :; done; stat; true";
    cluster.apply(
        &ns.name,
        &one_shot(
            "spinner",
            script,
            json!({"resources": {"limits": {"cpu": "100m"}}}),
        )
        .to_string(),
    )?;
    let (_, log) = cluster.wait_pod_end(&ns.name, "spinner", SOON)?;
    let throttled = log
        .lines()
        .find_map(|l| l.strip_prefix("nr_throttled ")?.trim().parse::<u64>().ok());
    let throttled = throttled.with_context(|| format!("no nr_throttled in:\n{log}"))?;
    ensure!(
        throttled >= 5,
        "spinning at a tenth of a processor was throttled only {throttled} times:\n{log}"
    );
    Ok(())
}

#[test]
fn a_killed_container_is_restarted() -> Result<()> {
    let (cluster, ns) = begin("killed")?;
    let mut spec = pod_spec("exec sleep 100000", json!({}));
    // The second container shares the process namespace and the user, so it can kill the first one's process.
    spec["shareProcessNamespace"] = true.into();
    let mut killer = spec["containers"][0].clone();
    killer["name"] = "killer".into();
    killer["command"] = json!(["tail", "-f", "/dev/null"]);
    spec["containers"]
        .as_array_mut()
        .context("containers is a list")?
        .push(killer);
    cluster.apply(&ns.name, &pod("victim", spec).to_string())?;
    cluster.wait_condition(&ns.name, "pod/victim", "Ready", SOON)?;
    cluster.kubectl(&[
        "-n",
        &ns.name,
        "exec",
        "victim",
        "-c",
        "killer",
        "--",
        "sh",
        "-c",
        "kill -9 $(pidof sleep)",
    ])?;
    cluster.wait_for(&ns.name, "the killed container to run again", SOON, || {
        let victim = cluster.get(&ns.name, "pod/victim")?;
        let statuses = victim
            .pointer("/status/containerStatuses")
            .and_then(Value::as_array)
            .context("no statuses yet")?;
        let main = statuses
            .iter()
            .find(|s| s["name"] == "main")
            .context("no container main")?;
        if main["restartCount"] == 1
            && main["state"]["running"].is_object()
            && main["lastState"]["terminated"]["exitCode"] == 137
        {
            return Ok(());
        }
        bail!("its status is {main}")
    })
}
