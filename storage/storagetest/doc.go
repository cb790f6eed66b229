// Package storagetest tells whether a log store keeps the contract of package storage.
//
// Whoever writes a storage.LogStore runs the suite on it:
//
//	func TestLogStore(t *testing.T) {
//		storagetest.RunLogStore(t, func(t testing.TB) storagetest.Disk { return newDisk(t) })
//	}
//
// A disk whose power can be cut (see CrashDisk) gets tests of what a crash may leave as well: without these, nothing is known about
// durability. The suite is itself tested with stores that break one promise each.
package storagetest
