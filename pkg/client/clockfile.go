package client

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// clocks is the file of that name: a head, and a line for each change; the last line of a device key and router counts.
// The file is read, and a line added, under the lock for each packet, so that the times used strictly increase across
// goroutines, processes and restarts. A line has these words; BOOT is -, or a plus and the boot id that the offset was learned in:
//
//	DEVICE ROUTER LAST-MS ANSWERED-MS ERA OFFSET-MS BOOT
//
// A line is on disk before the packet leaves that has its time. Adding one takes a fifth of the time that replacing the
// file takes, which syncs a file and its folder. A line that has no end was cut short by a crash before it was on disk:
// no packet has left, and the lines before it say all there is. It is no JSON because reading and writing that takes a
// process that does it once 0.2 ms, a tenth of the time that a knock takes.
type clocks struct {
	own   record            // of this memory's device key and router
	pair  string            // they, as they stand at the head of a line
	lines map[string]string // the last line of each pair
	size  int               // of the file
	torn  bool              // nothing can be added: there is no file, or it does not end with a whole line
}

const clocksHead = "knock clocks 2\n"

// renewAt is the size in bytes beyond which the file is replaced by the last lines.
const renewAt = 16 << 10

func (m *memory) path() string { return m.folder.file("clocks") }

func (m *memory) load() (*clocks, error) {
	c := &clocks{pair: m.device.String() + " " + m.router.String(), lines: map[string]string{}, torn: true}
	data, err := readPrivate(m.path())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = c.read(data)
	}
	if err != nil {
		return nil, configErrorf("reading %q: %w", m.path(), err)
	}
	return c, nil
}

var errDamaged = errors.New("damaged or of another version; remove it, and the clocks are learned anew")

func (c *clocks) read(data []byte) error {
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	c.size, c.torn = len(data), len(whole) < len(data)
	lines, ok := strings.CutPrefix(string(whole), clocksHead)
	if !ok {
		return errDamaged
	}
	for line := range strings.Lines(lines) {
		words := strings.Fields(line)
		if len(words) != 7 {
			return errDamaged
		}
		c.lines[words[0]+" "+words[1]] = line
	}
	if line, ok := c.lines[c.pair]; ok {
		return c.own.parse(strings.Fields(line)[2:])
	}
	return nil
}

// parse reads the words of a line after the keys.
func (r *record) parse(words []string) (err error) {
	number := func(word string) int64 {
		n, bad := strconv.ParseInt(word, 10, 64)
		if bad != nil {
			err = errDamaged
		}
		return n
	}
	*r = record{Last: number(words[0]), Answered: number(words[1]), Era: uint64(number(words[2])), Offset: number(words[3])}
	if boot := words[4]; boot != "-" {
		r.Known, r.Boot = true, strings.TrimPrefix(boot, "+")
	}
	return err
}

// text returns what parse reads, at the end of a line. A boot id that is known to be none is a bare plus.
func (r record) text() string {
	boot := "-"
	if r.Known {
		boot = "+" + r.Boot
	}
	return fmt.Sprintf("%d %d %d %d %s\n", r.Last, r.Answered, int64(r.Era), r.Offset, boot)
}

// store puts the own record on the disk.
func (m *memory) store(c *clocks) error {
	line := c.pair + " " + c.own.text()
	if !c.torn && c.size+len(line) <= renewAt && add(m.path(), []byte(line)) == nil {
		return nil
	}
	// Also when adding failed: what is in the file then is not known.
	c.lines[c.pair] = line
	text := clocksHead
	for _, pair := range slices.Sorted(maps.Keys(c.lines)) {
		text += c.lines[pair]
	}
	return replace(m.path(), []byte(text))
}
