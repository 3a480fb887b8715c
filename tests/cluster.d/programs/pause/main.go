// The container that holds a pod's namespaces: it waits for the signal to end, and reaps nothing because
// containerd gives each container its own pid namespace.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM)
	<-c
}
