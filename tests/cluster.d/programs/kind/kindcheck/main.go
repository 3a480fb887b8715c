// Reads a kind configuration as kind itself does (its own types, unknown fields refused) and applies the checks that
// kind makes before it asks the container engine for anything; kind cannot run where there is no such engine.
package main

import (
	"bytes"
	"fmt"
	"os"

	yaml "go.yaml.in/yaml/v3"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kindcheck FILE")
		os.Exit(2)
	}
	faults, err := check(os.Args[1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	for _, fault := range faults {
		fmt.Fprintf(os.Stderr, "%s: %s\n", os.Args[1], fault)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
	fmt.Printf("%s: kind takes it\n", os.Args[1])
}

func check(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var cluster v1alpha4.Cluster
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(&cluster); err != nil {
		return nil, err
	}
	var faults []string
	if cluster.APIVersion != "kind.x-k8s.io/v1alpha4" || cluster.Kind != "Cluster" {
		faults = append(faults, fmt.Sprintf("kind reads Cluster of kind.x-k8s.io/v1alpha4, not %q of %q", cluster.Kind, cluster.APIVersion))
	}
	v1alpha4.SetDefaultsCluster(&cluster)
	return append(faults, checkNodes(cluster.Nodes)...), nil
}

func checkNodes(nodes []v1alpha4.Node) []string {
	var faults []string
	controlPlanes := 0
	taken := map[string]bool{}
	for i, node := range nodes {
		switch node.Role {
		case v1alpha4.ControlPlaneRole:
			controlPlanes++
		case v1alpha4.WorkerRole:
		default:
			faults = append(faults, fmt.Sprintf("node %d: %q is no role", i, node.Role))
		}
		if node.Image != defaults.Image {
			faults = append(faults, fmt.Sprintf("node %d: image is %s, but this kind was released with %s", i, node.Image, defaults.Image))
		}
		for _, port := range node.ExtraPortMappings {
			if port.ContainerPort < 1 || port.ContainerPort > 65535 || port.HostPort < 0 || port.HostPort > 65535 {
				faults = append(faults, fmt.Sprintf("node %d: port %d -> %d is out of range", i, port.HostPort, port.ContainerPort))
			}
			key := fmt.Sprintf("%s:%d/%s", port.ListenAddress, port.HostPort, port.Protocol)
			if port.HostPort != 0 && taken[key] {
				faults = append(faults, fmt.Sprintf("node %d: host port %s is given twice", i, key))
			}
			taken[key] = true
		}
		for _, mount := range node.ExtraMounts {
			if mount.HostPath == "" || mount.ContainerPath == "" {
				faults = append(faults, fmt.Sprintf("node %d: a mount needs hostPath and containerPath", i))
			}
		}
	}
	if controlPlanes == 0 {
		faults = append(faults, "no node has the role control-plane")
	}
	return faults
}
