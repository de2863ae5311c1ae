package hook

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Check says what is wrong with a program, by its absolute path: whoever can change it, or put another in its place, would be who
// spad runs as.
func Check(program string) error {
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return fmt.Errorf("%q is no program", program)
	case mode&0o111 == 0:
		return fmt.Errorf("%q may not be executed; mend it with: chmod +x", program)
	}
	if err := ours(real, info); err != nil {
		return err
	}
	for _, path := range []string{program, real} {
		if err := checkAbove(path); err != nil {
			return err
		}
	}
	return nil
}

// checkAbove looks at the folders that a file lies in. In one with the sticky bit, such as /tmp, others can't replace what is not
// theirs.
func checkAbove(path string) error {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSticky == 0 {
			if err := ours(dir, info); err != nil {
				return err
			}
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// ours says whether nobody but root and this user can change a file or a folder.
func ours(path string, info fs.FileInfo) error {
	if info.Mode()&0o022 != 0 {
		return fmt.Errorf("%q may be changed by others; mend it with: chmod go-w", path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%q belongs to user %d, who could make spad run anything; mend it with: chown root", path, st.Uid)
	}
	return nil
}
