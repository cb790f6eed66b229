// Package compose tests what compose/ starts. The fast tests look at its files. With QUORATE_COMPOSE set, containers are run as well:
//
//	QUORATE_COMPOSE=1 go test ./test/compose -run InContainers -v -timeout 20m
//
// needs Docker, and no image registry: all images are made of static binaries that the test builds. It runs the commands of the README, in
// a project of its own, on a network that leads nowhere, and removes all that it made.
package compose
