package replay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// ending is how a journal came to its end.
type ending struct {
	clean   bool   // with a clean-stop mark
	trouble string // why not, unless clean
}

// What may be the trouble with a journal that is whole as far as it goes.
const (
	missing = "missing"
	killed  = "spad was not stopped in good order"
)

// errVersion is the version of a journal that this program can't read.
type errVersion uint32

func (v errVersion) Error() string {
	return fmt.Sprintf("it has version %d, this spad reads version %d: run the spad that wrote it, "+
		"or move the file away (every device is then asked once to correct its clock)", uint32(v), version)
}

// load reads a journal up to its end or the first block that is not whole. Errors are
// those of r, and errVersion.
func load(r io.Reader) (*table, ending, error) {
	t, in, b := newTable(), bufio.NewReader(r), new([blockSize]byte)
	if end, err := readBlock(in, b, 0); end.trouble != "" || err != nil {
		return t, end, err
	}
	if v, ok := headerVersion(b); !ok {
		return t, ending{trouble: "its header is damaged"}, nil
	} else if v != version {
		return nil, ending{}, errVersion(v)
	}
	return t.read(in, b)
}

// read applies one record after the other.
func (t *table) read(in io.Reader, b *[blockSize]byte) (*table, ending, error) {
	clean := false
	for at := int64(blockSize); ; at += blockSize {
		end, err := readBlock(in, b, at)
		if errors.Is(err, io.EOF) {
			return t, endOf(clean), nil
		}
		if end.trouble != "" || err != nil {
			return t, end, err
		}
		r, err := decode(b)
		if err == nil && clean {
			err = errors.New("a record after the clean-stop mark")
		}
		if err != nil {
			return t, ending{trouble: fmt.Sprintf("damaged at byte %d: %v", at, err)}, nil
		}
		t.apply(r)
		clean = r.kind == kindClean
	}
}

// endOf is the end after a whole record.
func endOf(clean bool) ending {
	if clean {
		return ending{clean: true}
	}
	return ending{trouble: killed}
}

// readBlock reads the block at byte at. io.EOF means that the file ends there, which only an empty file may not.
func readBlock(in io.Reader, b *[blockSize]byte, at int64) (ending, error) {
	n, err := io.ReadFull(in, b[:])
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), at == 0 && errors.Is(err, io.EOF):
		return ending{trouble: fmt.Sprintf("cut short at byte %d", at+int64(n))}, nil
	default:
		return ending{}, err
	}
}
