package firewalltest

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A result is how a case of the conformance suite ended for a backend.
type result string

const (
	passed      result = "ok"
	failed      result = "FAILED"
	skipped     result = "skipped"
	notRun      result = "not run"
	needsKernel result = "needs a kernel"
)

// table is what the suite found out in this process, a column per backend.
type table struct {
	mu      sync.Mutex
	columns []string
	cells   map[cell]result
}

type cell struct{ column, row string }

var results table

// watch notes how t ends.
func (r *table) watch(t *testing.T, column, row string) {
	t.Cleanup(func() {
		switch {
		case t.Failed():
			r.set(column, row, failed)
		case t.Skipped():
			r.set(column, row, skipped)
		default:
			r.set(column, row, passed)
		}
	})
}

// set fills a cell; of several runs, one that failed is what counts.
func (r *table) set(column, row string, how result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.columns, column) {
		r.columns = append(r.columns, column)
	}
	if r.cells == nil {
		r.cells = map[cell]result{}
	}
	if at := (cell{column, row}); r.cells[at] != failed {
		r.cells[at] = how
	}
}

func (r *table) get(column, row string) result {
	if how, ok := r.cells[cell{column, row}]; ok {
		return how
	}
	return notRun
}

// print writes a line per case, and one per backend that sums it up; nothing if the suite did not run.
func (r *table) print(w io.Writer, rows []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.columns) == 0 {
		return
	}
	wide := 0
	for _, row := range rows {
		wide = max(wide, len(row))
	}
	for _, row := range rows {
		line := fmt.Sprintf("%-*s", wide, row)
		for _, column := range r.columns {
			line += fmt.Sprintf(" | %-*s", len(column)+1+len(needsKernel), column+" "+string(r.get(column, row)))
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	for _, column := range r.columns {
		fmt.Fprintln(w, r.sum(column, rows))
	}
}

// sum says "conformance nftables: 29 of 29 ok", and how many ended otherwise.
func (r *table) sum(column string, rows []string) string {
	count := map[result]int{}
	for _, row := range rows {
		count[r.get(column, row)]++
	}
	line := fmt.Sprintf("conformance %s: %d of %d ok", column, count[passed], len(rows)-count[needsKernel])
	if n := count[needsKernel]; n > 0 {
		line += fmt.Sprintf(", %d need a kernel", n)
	}
	for _, how := range []result{failed, skipped, notRun} {
		if n := count[how]; n > 0 {
			line += fmt.Sprintf(", %d %s", n, how)
		}
	}
	return line
}
