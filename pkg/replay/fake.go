package replay

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
)

// fakeDisk is a strict disk for tests: it panics when the journal appends to a file
// that may end in a half record, and fails when told to, halfway.
type fakeDisk struct {
	data    []byte // what the disk holds; nil is no file
	fail    error  // what the next writes fail with
	part    int    // how many bytes a failing Append still writes
	open    bool   // Append may follow
	appends int
	hold    chan struct{} // if set, Append waits until it is closed
}

func (d *fakeDisk) Open() (io.ReadCloser, error) {
	if d.data == nil {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(bytes.Clone(d.data))), nil
}

func (d *fakeDisk) Replace(data []byte) error {
	d.open = false
	if d.fail != nil {
		return d.fail
	}
	d.data, d.open = bytes.Clone(data), true
	return nil
}

func (d *fakeDisk) Append(data []byte) error {
	if !d.open {
		panic("append to a journal that may end in a half record")
	}
	if d.hold != nil {
		<-d.hold
	}
	d.appends++
	if d.fail != nil {
		d.open = false
		d.data = append(d.data, data[:min(d.part, len(data))]...)
		return d.fail
	}
	d.data = append(d.data, data...)
	return nil
}

func (d *fakeDisk) Close() error {
	if !d.open && d.fail == nil {
		return errors.New("closed twice")
	}
	d.open = false
	return nil
}
