//! What a pod template must not have: whatever gives a pod power over its node, as in the level `restricted` of the Pod
//! Security Standards, or over where it and others run. The operator makes the pod, so that its own rights must not become those of a pipeline's author.

use serde_json::Value;

use super::field_path::join;

/// Fields of a pod that share its node's namespaces.
const HOST_NAMESPACES: [&str; 3] = ["hostNetwork", "hostPID", "hostIPC"];
/// Lists of containers in a pod.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
/// What a volume may be.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Kernel settings that each pod has for itself; kubelets refuse others, and a Deployment makes such pods without end.
const SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];
/// SELinux types of ordinary containers.
const SELINUX_TYPES: [&str; 4] = ["", "container_t", "container_init_t", "container_kvm_t"];
/// How AppArmor's profiles were written before they were fields.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
/// Fields of a container that say what the kubelet calls for it: any address.
const CALLS: [&str; 5] = [
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle.postStart",
    "lifecycle.preStop",
];
/// The capability that a container may add.
const ALLOWED_CAPABILITY: &str = "NET_BIND_SERVICE";
/// How the priority classes of a cluster's own components begin.
const SYSTEM_CLASSES: &str = "system-";
const REMOVE: &str = "remove it, since pods of a pipeline get no power over their node";

/// Reports every field that is not allowed, by its path: path, value, rule and remedy.
pub(super) fn check(
    template: &Value,
    path: &str,
    report: &mut impl FnMut(&str, &Value, &str, &str),
) {
    let annotations = template["metadata"]["annotations"].as_object();
    for (name, profile) in annotations.into_iter().flatten() {
        if name.starts_with(APPARMOR_ANNOTATION) && profile == "unconfined" {
            let path = join(&join(path, "metadata.annotations"), name);
            report(&path, profile, "must not be unconfined", REMOVE);
        }
    }
    let (spec, path) = (&template["spec"], join(path, "spec"));
    for name in HOST_NAMESPACES {
        refuse_true(&spec[name], &join(&path, name), report);
    }
    let (node, class) = (&spec["nodeName"], &spec["priorityClassName"]);
    if node.as_str().is_some_and(|name| !name.is_empty()) {
        let help = "use nodeSelector or affinity: a pod that names its node passes by the scheduler and the node's taints";
        report(&join(&path, "nodeName"), node, "must not be given", help);
    }
    if class
        .as_str()
        .is_some_and(|name| name.starts_with(SYSTEM_CLASSES))
    {
        let rule = "must not be a class of the cluster's own components";
        let help = "name another PriorityClass: pods of this one evict the others of a node";
        report(&join(&path, "priorityClassName"), class, rule, help);
    }
    for (volume, path) in items(spec, &path, "volumes") {
        let fields = volume.as_object().into_iter().flatten();
        for (field, value) in fields.filter(|(_, value)| value.is_object()) {
            if !VOLUMES.contains(&field.as_str()) {
                let help = "use a PersistentVolumeClaim; a PersistentVolume may be of any kind";
                report(&join(&path, field), value, "must not be given", help);
            }
        }
    }
    let context = join(&path, "securityContext");
    for (sysctl, path) in items(&spec["securityContext"], &context, "sysctls") {
        let name = &sysctl["name"];
        if name.as_str().is_some_and(|name| !SYSCTLS.contains(&name)) {
            let rule = "must be one that each pod has for itself";
            report(&join(&path, "name"), name, rule, REMOVE);
        }
    }
    check_context(spec, &path, report);
    for (container, path) in CONTAINERS
        .iter()
        .flat_map(|containers| items(spec, &path, containers))
    {
        check_context(container, &path, report);
        check_calls(container, &path, report);
        for (port, path) in items(container, &path, "ports") {
            let host_port = &port["hostPort"];
            if host_port.as_i64().is_some_and(|number| number != 0) {
                let help = "remove it, and reach the port through a Service";
                report(
                    &join(&path, "hostPort"),
                    host_port,
                    "must not be given",
                    help,
                );
            }
        }
    }
}

/// Probes and lifecycle hooks of a container: the kubelet would call any address.
fn check_calls(container: &Value, path: &str, report: &mut impl FnMut(&str, &Value, &str, &str)) {
    for call in CALLS {
        for kind in ["httpGet", "tcpSocket"] {
            let field = format!("{call}.{kind}.host");
            let host = container.pointer(&format!("/{}", field.replace('.', "/")));
            if let Some(host) = host.filter(|host| host.as_str().is_some_and(|it| !it.is_empty())) {
                let help = "remove it: the pod itself is called";
                report(&join(path, &field), host, "must not be given", help);
            }
        }
    }
}

/// The securityContext of a pod or a container.
fn check_context(of: &Value, path: &str, report: &mut impl FnMut(&str, &Value, &str, &str)) {
    let (context, path) = (&of["securityContext"], join(path, "securityContext"));
    for name in ["privileged", "allowPrivilegeEscalation"] {
        refuse_true(&context[name], &join(&path, name), report);
    }
    let host_process = &context["windowsOptions"]["hostProcess"];
    let of_windows = join(&path, "windowsOptions");
    refuse_true(host_process, &join(&of_windows, "hostProcess"), report);
    let user = &context["runAsUser"];
    if user.as_i64() == Some(0) {
        let help = "write the number of another user, or remove it";
        report(&join(&path, "runAsUser"), user, "must not be 0", help);
    }
    let non_root = &context["runAsNonRoot"];
    if *non_root == Value::Bool(false) {
        let path = join(&path, "runAsNonRoot");
        report(&path, non_root, "must not be false", "remove it");
    }
    let proc_mount = &context["procMount"];
    if proc_mount.as_str().is_some_and(|mount| mount != "Default") {
        let path = join(&path, "procMount");
        report(&path, proc_mount, "must be Default", REMOVE);
    }
    for name in ["seccompProfile", "appArmorProfile"] {
        let profile = &context[name]["type"];
        if profile == "Unconfined" {
            let path = join(&join(&path, name), "type");
            report(&path, profile, "must not be Unconfined", REMOVE);
        }
    }
    let of_selinux = join(&path, "seLinuxOptions");
    for name in ["user", "role", "type"] {
        let value = &context["seLinuxOptions"][name];
        let is_allowed = |text: &str| match name {
            "type" => SELINUX_TYPES.contains(&text),
            _ => text.is_empty(),
        };
        if value.as_str().is_some_and(|text| !is_allowed(text)) {
            let rule = "must be that of an ordinary container";
            report(&join(&of_selinux, name), value, rule, REMOVE);
        }
    }
    let of_capabilities = join(&path, "capabilities");
    for (capability, path) in items(&context["capabilities"], &of_capabilities, "add") {
        if capability.is_string() && capability != ALLOWED_CAPABILITY {
            let rule = format!("must be {ALLOWED_CAPABILITY}");
            report(&path, capability, &rule, REMOVE);
        }
    }
}

fn refuse_true(value: &Value, path: &str, report: &mut impl FnMut(&str, &Value, &str, &str)) {
    if *value == Value::Bool(true) {
        report(path, value, "must not be true", REMOVE);
    }
}

/// The items of a list, each with its path.
fn items<'a>(of: &'a Value, path: &str, name: &str) -> Vec<(&'a Value, String)> {
    let path = join(path, name);
    let items = of[name].as_array().into_iter().flatten().enumerate();
    items
        .map(|(index, item)| (item, format!("{path}[{index}]")))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(template: &Value) -> Vec<String> {
        let mut found = Vec::new();
        check(template, "podTemplate", &mut |path, _, rule, _| {
            found.push(format!("{path} {rule}"));
        });
        found.sort();
        found
    }

    #[test]
    fn whatever_gives_a_pod_power_over_its_node_is_refused() {
        let annotation = "container.apparmor.security.beta.kubernetes.io/worker";
        let template = json!({"metadata": {"annotations": {annotation: "unconfined"}}, "spec": {
            "hostNetwork": true, "hostPID": true, "hostIPC": true,
            "nodeName": "control-plane", "priorityClassName": "system-node-critical",
            "volumes": [
                {"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/"}},
                {"name": "c", "nfs": {"server": "s", "path": "/"}},
            ],
            "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies"}, {"name": "kernel.msgmax"}], "runAsUser": 0, "runAsNonRoot": false, "seccompProfile": {"type": "Unconfined"}},
            "containers": [
                {"name": "worker", "securityContext": {
                    "privileged": true, "allowPrivilegeEscalation": true,
                    "seLinuxOptions": {"type": "spc_t", "user": "system_u"},
                }, "lifecycle": {"preStop": {"httpGet": {"host": "169.254.169.254", "port": 80}}}},
                {"name": "more", "ports": [{"containerPort": 1}, {"containerPort": 2, "hostPort": 2}]},
            ],
            "initContainers": [{"name": "first", "securityContext": {
                "procMount": "Unmasked", "capabilities": {"add": ["NET_BIND_SERVICE", "SYS_ADMIN"]},
                "windowsOptions": {"hostProcess": true}, "appArmorProfile": {"type": "Unconfined"},
            }}],
        }});
        let expected = [
            "containers[0].lifecycle.preStop.httpGet.host must not be given",
            "containers[0].securityContext.allowPrivilegeEscalation must not be true",
            "containers[0].securityContext.privileged must not be true",
            "containers[0].securityContext.seLinuxOptions.type must be that of an ordinary container",
            "containers[0].securityContext.seLinuxOptions.user must be that of an ordinary container",
            "containers[1].ports[1].hostPort must not be given",
            "hostIPC must not be true",
            "hostNetwork must not be true",
            "hostPID must not be true",
            "initContainers[0].securityContext.appArmorProfile.type must not be Unconfined",
            "initContainers[0].securityContext.capabilities.add[1] must be NET_BIND_SERVICE",
            "initContainers[0].securityContext.procMount must be Default",
            "initContainers[0].securityContext.windowsOptions.hostProcess must not be true",
            "nodeName must not be given",
            "priorityClassName must not be a class of the cluster's own components",
            "securityContext.runAsNonRoot must not be false",
            "securityContext.runAsUser must not be 0",
            "securityContext.seccompProfile.type must not be Unconfined",
            "securityContext.sysctls[1].name must be one that each pod has for itself",
            "volumes[1].hostPath must not be given",
            "volumes[2].nfs must not be given",
        ];
        let of_annotation =
            format!("podTemplate.metadata.annotations.{annotation} must not be unconfined");
        let of_spec = expected.map(|it| format!("podTemplate.spec.{it}"));
        let expected: Vec<_> = [of_annotation].into_iter().chain(of_spec).collect();
        assert_eq!(refused(&template), expected);
    }

    #[test]
    fn a_template_without_such_power_is_taken() {
        let template = json!({"metadata": {"labels": {"team": "a"}}, "spec": {
            "hostNetwork": false, "hostUsers": false, "nodeName": null, "priorityClassName": "mine",
            "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "a"}}, {"name": "b", "hostPath": null}],
            "securityContext": {"runAsUser": 1000, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "proxy", "ports": [{"containerPort": 80, "hostPort": 0}], "securityContext": {
                "privileged": false, "allowPrivilegeEscalation": false, "procMount": "Default",
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            }}],
        }});
        assert_eq!(refused(&template), Vec::<String>::new());
        assert_eq!(refused(&json!({})), Vec::<String>::new());
        // A value of a wrong type is reported as such.
        assert_eq!(
            refused(&json!({"spec": {"volumes": 3}})),
            Vec::<String>::new()
        );
    }
}
