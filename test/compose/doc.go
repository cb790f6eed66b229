// Package compose tests what compose/ starts. The fast tests look at its files. With QUORATE_COMPOSE set, containers are run as well:
//
//	QUORATE_COMPOSE=1 go test ./test/compose -run InContainers -v -timeout 20m
//
// starts the cluster and takes a leader and a NATS server from it, and
//
//	QUORATE_COMPOSE=1 go test ./test/compose -run WithBackends -v -timeout 40m
//
// has Jaeger and Prometheus, too. They need Docker, and no image registry: all images are made of static binaries that the tests build. They
// run the commands of the README, in a project of its own, on a network that leads nowhere, and remove all that they made.
package compose
