package pebblelog

// ScanWriteAheadLogs is scanWriteAheadLogs and ManifestDamage manifestDamage, for the fuzzers.
var (
	ScanWriteAheadLogs = scanWriteAheadLogs
	ManifestDamage     = manifestDamage
)
