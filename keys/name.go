package keys

// MaxName is the length of the longest name of a device or service, in bytes.
const MaxName = 32

// ValidName reports whether name may name a device or a service: it starts with a
// small letter or a digit, goes on with these and hyphens, and has at most 32 bytes.
func ValidName(name string) bool {
	if name == "" || len(name) > MaxName || name[0] == '-' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
