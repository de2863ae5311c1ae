package replay

import "fmt"

// flush returns when the batch is on disk, or can't be. The first of its callers to
// get hold of the disk writes for all; meanwhile the next batch gathers.
func (j *Journal) flush(b *batch) error {
	j.io.Lock()
	defer j.io.Unlock()
	if !b.done {
		b.done = true
		b.err = j.write(b)
	}
	return b.err
}

// write appends the batch, which is j.batch, or replaces the file if it is torn or full.
func (j *Journal) write(b *batch) error {
	j.mu.Lock()
	n := int64(len(b.data))
	if j.torn || j.size+n > j.bound {
		j.mu.Unlock()
		return j.rewrite()
	}
	j.batch = &batch{}
	j.mu.Unlock()
	if err := j.disk.Append(b.data); err != nil {
		return j.fail(err)
	}
	j.size += n
	return nil
}

// rewrite replaces the file by a snapshot of the memory, in which the batch is already.
func (j *Journal) rewrite() error {
	j.mu.Lock()
	j.batch = &batch{}
	j.table.age(j.clock.now(), j.width)
	data := j.table.snapshot()
	if j.closed {
		data = record{kind: kindClean, save: j.table.saved}.encode(data)
	}
	j.mu.Unlock()
	if err := j.disk.Replace(data); err != nil {
		return j.fail(err)
	}
	if j.failing {
		j.log.Info("the replay journal can be written again", "path", j.path)
	}
	j.torn, j.failing = false, false
	j.size, j.bound = int64(len(data)), int64(len(data))+growth
	return nil
}

// fail notes that the file can't be trusted to end well. It logs the first failure of a row.
func (j *Journal) fail(err error) error {
	if !j.failing {
		j.log.Error("the replay journal can't be written: no knock opens until it can", "path", j.path, "error", err)
	}
	j.torn, j.failing = true, true
	return fmt.Errorf("writing the replay journal: %w", err)
}
