package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// imports is the one direction in which packages know each other: each may import the packages listed with it, and no other of this module.
// A package that is not here has no place in the house.
var imports = map[string][]string{
	"keys":       {},
	"pkg/wire":   {"keys"},
	"pkg/replay": {"keys"},
	"pkg/flood":  {},
	"pkg/event":  {},
	// Sinks apart from pkg/event, so that who publishes does not link what they need.
	"pkg/event/outbox":  {"pkg/event"},
	"pkg/event/hook":    {"pkg/event"},
	"pkg/event/journal": {"pkg/event"},
	"pkg/event/webhook": {"keys", "pkg/event/outbox"},
	"pkg/device":        {"keys", "pkg/wire"},
	"pkg/policy":        {"pkg/wire"},
	"pkg/firewall":      {},
	"pkg/capture":       {},
	"pkg/verify":        {"keys", "pkg/wire", "pkg/replay", "pkg/flood", "pkg/device"},
	"pkg/session":       {"pkg/firewall", "pkg/event", "pkg/policy"},
	"pkg/config":        {"keys", "pkg/event", "pkg/wire", "pkg/flood", "pkg/device", "pkg/policy", "pkg/firewall"},
	"pkg/control":       {"keys", "pkg/event", "pkg/device", "pkg/remote"}, // whose pins and proofs its TLS side checks
	"pkg/remote":        {"keys"},
	"pkg/client":        {"keys", "pkg/wire"},
	"pkg/daemon": {
		"keys", "pkg/wire", "pkg/replay", "pkg/flood", "pkg/event", "pkg/device", "pkg/policy", "pkg/firewall", "pkg/firewall/nftables",
		"pkg/event/outbox", "pkg/event/webhook", "pkg/event/hook",
		"pkg/firewall/iptables", "pkg/capture", "pkg/verify", "pkg/session", "pkg/config", "pkg/control",
		"pkg/remote",
	},
	"pkg/doctor": { // looks at all that a knock meets, and only looks; it knows no daemon, the command tells it of one
		"keys", "pkg/replay", "pkg/device", "pkg/firewall", "pkg/firewall/foreign", "pkg/firewall/nftables", "pkg/firewall/iptables",
		"pkg/capture", "pkg/config",
	},
	"pkg/firewall/nftables":     {"pkg/firewall"},
	"pkg/firewall/iptables":     {"pkg/firewall"},
	"pkg/firewall/foreign":      {"pkg/firewall/iptables"}, // which has the program that lists legacy tables
	"pkg/firewall/firewalltest": {"pkg/firewall"},
	"spad": {
		"keys", "pkg/wire", "pkg/event", "pkg/event/journal", "pkg/device", "pkg/config", "pkg/control", "pkg/daemon", "pkg/doctor",
		"pkg/remote",
	},
	"knock": {"keys", "pkg/wire", "pkg/client"},
}

// onlyIn says which packages may import what everyone might be tempted to. A trailing slash means everything below.
var onlyIn = map[string][]string{
	"os/exec":                        {"knock", "pkg/firewall/iptables", "pkg/firewall/firewalltest", "pkg/event/hook"},
	"net/http":                       {"pkg/control", "pkg/event/webhook"},
	"github.com/BurntSushi/toml":     {"pkg/config", "pkg/client"},
	"github.com/urfave/cli/":         {"spad", "knock"},
	"github.com/google/nftables/":    {"pkg/firewall/nftables", "pkg/firewall/foreign", "pkg/firewall/firewalltest"},
	"github.com/google/gopacket/":    {"pkg/capture"},
	"github.com/coreos/go-iptables/": {"pkg/firewall/iptables"},
	"github.com/coreos/go-systemd/":  {"pkg/daemon", "pkg/event/journal"},
	"log":                            {}, // log/slog it is
	"math/rand":                      {},
	"math/rand/v2":                   {"pkg/client", "pkg/event/webhook"}, // jitter of retries; keys come from crypto/rand

	// What tests are made of. The laboratory is made for tests, and nothing else may import it.
	"testing/":                               {"pkg/firewall/firewalltest"},
	"go.uber.org/goleak":                     {"pkg/firewall/firewalltest"},
	"github.com/google/go-cmp/":              {},
	"github.com/rogpeppe/go-internal/":       {},
	"github.com/santhosh-tekuri/jsonschema/": {},
}

// noFrameworks are what no test may import either: a test says in Go what it wants.
var noFrameworks = []string{
	"github.com/stretchr/testify", "github.com/golang/mock", "go.uber.org/mock", "github.com/onsi", "gotest.tools", "github.com/matryer",
}

// pure packages do no I/O and read no clock.
var pure = []string{"pkg/wire", "pkg/flood", "pkg/policy"}

// notLinked is what must not be in the client, on any system it is built for: it shall stay small.
var notLinked = []string{"net/http", "github.com/google/gopacket", "github.com/coreos/go-iptables", "github.com/google/nftables", "spad/pkg/daemon"}

// A pack is what go list says of one package.
type pack struct {
	ImportPath, Doc string
	GoFiles         []string
	Error           *struct{ Err string }
}

func (p pack) name() string { return strings.TrimPrefix(p.ImportPath, "spad/") }

const root = ".."

// goList runs go list in the module's root with env added and decodes what it prints.
func goList(env []string, args ...string) ([]pack, error) {
	cmd := exec.Command("go", append([]string{"list", "-e", "-json"}, args...)...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, errs.String())
	}
	var packs []pack
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pack
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packs, nil
		case err != nil:
			return nil, err
		}
		packs = append(packs, p)
	}
}

var house = sync.OnceValues(func() ([]pack, error) { return goList(nil, "./...") })

func packs(t *testing.T) []pack {
	t.Helper()
	packs, err := house()
	if err != nil {
		t.Fatal(err)
	}
	if len(packs) == 0 {
		t.Fatal("go list names no package")
	}
	return packs
}

func TestHouseImports(t *testing.T) {
	for _, p := range packs(t) {
		if p.Error != nil {
			t.Errorf("%s: %s", p.name(), p.Error.Err)
		}
		if _, ok := imports[p.name()]; !ok {
			t.Errorf("%s has no place in the house: see the table in deps_test.go", p.name())
		}
	}
	// Every file, so that those for other systems and behind build tags count too.
	sources(t, noTest, func(path string, _ *token.FileSet, f *ast.File) {
		name := filepath.ToSlash(filepath.Dir(path))
		for _, i := range importPaths(f) {
			if own, ours := strings.CutPrefix(i, "spad/"); ours && !slices.Contains(imports[name], own) {
				t.Errorf("%s: %s must not import %s", path, name, own)
			}
			if bound, ok := boundTo(i); ok && !slices.Contains(bound, name) {
				t.Errorf("%s: %s must not import %s, which belongs in %v", path, name, i, bound)
			}
		}
	})
}

func TestHouseTestsUseNoFramework(t *testing.T) {
	sources(t, all, func(path string, _ *token.FileSet, f *ast.File) {
		for _, i := range importPaths(f) {
			for _, bad := range noFrameworks {
				if i == bad || strings.HasPrefix(i, bad+"/") {
					t.Errorf("%s imports %s", path, i)
				}
			}
		}
	})
}

// boundTo gives the packages that may import path, if not all may.
func boundTo(path string) ([]string, bool) {
	for rule, in := range onlyIn {
		if tree, ok := strings.CutSuffix(rule, "/"); path == rule || ok && (path == tree || strings.HasPrefix(path, rule)) {
			return in, true
		}
	}
	return nil, false
}

// The table itself must be a hierarchy, or "one way" means nothing.
func TestHouseHasNoCircle(t *testing.T) {
	const under, done = 1, 2
	state := map[string]int{}
	var visit func(name string)
	visit = func(name string) {
		switch state[name] {
		case under:
			t.Fatalf("%s imports itself by way of others", name)
		case done:
			return
		}
		state[name] = under
		for _, below := range imports[name] {
			if _, ok := imports[below]; !ok {
				t.Errorf("%s may import %s, which is not in the table", name, below)
			}
			visit(below)
		}
		state[name] = done
	}
	for name := range imports {
		visit(name)
	}
}

func TestHouseClientStaysSmall(t *testing.T) {
	for _, system := range []string{"linux", "darwin", "windows"} {
		linked, err := goList([]string{"GOOS=" + system, "CGO_ENABLED=0"}, "-deps", "./knock")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range linked {
			for _, bad := range notLinked {
				if p.ImportPath == bad || strings.HasPrefix(p.ImportPath, bad+"/") {
					t.Errorf("knock for %s links %s", system, p.ImportPath)
				}
			}
		}
	}
}

func TestHousePackagesAreDocumented(t *testing.T) {
	for _, p := range packs(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.name())
		}
	}
}

// sources parses every Go file of the house that pick wants.
func sources(t *testing.T, pick func(path string) bool, visit func(path string, files *token.FileSet, f *ast.File)) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		rel := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		if d.IsDir() || filepath.Ext(path) != ".go" || !pick(rel) {
			return nil
		}
		found++
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		visit(rel, files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Fatal("no source found: the test looks in the wrong place")
	}
}

func isTest(path string) bool { return strings.HasSuffix(path, "_test.go") }
func noTest(path string) bool { return !isTest(path) }
func all(string) bool         { return true }

func TestHouseExportedNamesAreDocumented(t *testing.T) {
	sources(t, noTest, func(path string, files *token.FileSet, f *ast.File) {
		for _, d := range f.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s:%d: %s has no comment", path, files.Position(d.Pos()).Line, name)
			}
		}
	})
}

// wellKnown are the methods whose meaning a standard interface fixes.
var wellKnown = []string{"String", "Error", "Is", "Unwrap"}

// undocumented lists the exported names that d declares without a comment of their own or of their group.
func undocumented(d ast.Decl) (out []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		method := d.Recv != nil
		if d.Doc == nil && d.Name.IsExported() && (!method || exportedReceiver(d.Recv) && !slices.Contains(wellKnown, d.Name.Name)) {
			out = append(out, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if d.Doc == nil && s.Doc == nil && s.Comment == nil && s.Name.IsExported() {
					out = append(out, s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if d.Doc == nil && s.Doc == nil && s.Comment == nil && n.IsExported() {
						out = append(out, n.Name)
					}
				}
			}
		}
	}
	return out
}

func exportedReceiver(r *ast.FieldList) bool {
	t := r.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	if g, ok := t.(*ast.IndexExpr); ok {
		t = g.X
	}
	id, ok := t.(*ast.Ident)
	return ok && id.IsExported()
}

func TestHouseIsFormatted(t *testing.T) {
	sources(t, all, func(path string, _ *token.FileSet, _ *ast.File) {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		want, err := format.Source(text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text, want) {
			t.Errorf("%s is not gofmt'd", path)
		}
	})
}

// ioPackages are what a pure package must not import; net/netip has no I/O.
var ioPackages = []string{"os", "net", "syscall", "io/ioutil", "log/slog", "crypto/rand", "golang.org/x/sys/unix"}

// clocks are what of package time reads a clock or waits for one.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

func TestHousePurePackages(t *testing.T) {
	inside := func(path string) bool {
		return noTest(path) && slices.Contains(pure, filepath.ToSlash(filepath.Dir(path)))
	}
	sources(t, inside, func(path string, files *token.FileSet, f *ast.File) {
		for _, name := range importPaths(f) {
			for _, bad := range ioPackages {
				if name == bad || strings.HasPrefix(name, bad+"/") && name != "net/netip" {
					t.Errorf("%s imports %s", path, name)
				}
			}
		}
		for _, call := range selectors(f, f, "time", clocks) {
			t.Errorf("%s:%d: a pure package gets its time as an argument", path, files.Position(call.Pos()).Line)
		}
	})
}

// A sleep that paces a loop (its last clause) asks again until something is so. Any other one hopes that it is so by then: slow
// where it need not be and wrong on a busy machine. Allowed where a real kernel's clock must pass, and where synctest's does.
func TestHouseTestsDoNotSleep(t *testing.T) {
	lab := func(path string) bool {
		return strings.HasSuffix(path, "e2e_test.go") || strings.HasPrefix(path, "pkg/firewall/firewalltest/")
	}
	sources(t, isTest, func(path string, files *token.FileSet, f *ast.File) {
		if lab(path) || importsPath(f, "testing/synctest") {
			return
		}
		pacing := map[ast.Node]bool{}
		ast.Inspect(f, func(n ast.Node) bool {
			if loop, ok := n.(*ast.ForStmt); ok && loop.Post != nil {
				for _, s := range selectors(f, loop.Post, "time", []string{"Sleep"}) {
					pacing[s] = true
				}
			}
			return true
		})
		for _, s := range selectors(f, f, "time", []string{"Sleep"}) {
			if !pacing[s] {
				t.Errorf("%s:%d: a test must not sleep", path, files.Position(s.Pos()).Line)
			}
		}
	})
}

// A package that starts goroutines has tests that fail if one is left: a task that outlives its end is a daemon that does
// not stop, or a table that grows.
func TestHouseLeavesNoGoroutineBehind(t *testing.T) {
	starts := map[string]string{} // by package, where it starts one
	sources(t, noTest, func(path string, files *token.FileSet, f *ast.File) {
		for _, n := range starters(f) {
			starts[filepath.Dir(path)] = fmt.Sprintf("%s:%d", path, files.Position(n.Pos()).Line)
		}
	})
	watched := map[string]bool{}
	sources(t, isTest, func(path string, _ *token.FileSet, f *ast.File) {
		main := selectors(f, f, "go.uber.org/goleak", []string{"VerifyTestMain"})
		main = append(main, selectors(f, f, "spad/pkg/firewall/firewalltest", []string{"Main"})...)
		if len(main) > 0 {
			watched[filepath.Dir(path)] = true
		}
	})
	if len(starts) == 0 {
		t.Error("no package starts a goroutine: the test looks for the wrong thing")
	}
	for name, at := range starts {
		if !watched[name] {
			t.Errorf("%s starts a goroutine, and no TestMain of %s calls goleak.VerifyTestMain or firewalltest.Main", at, name)
		}
	}
}

// starters finds what starts a goroutine in f: go, a group's Go, AfterFunc.
func starters(f *ast.File) (found []ast.Node) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, n)
		case *ast.CallExpr:
			if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" {
				found = append(found, n)
			}
		}
		return true
	})
	for _, pkg := range []string{"time", "context"} {
		found = append(found, selectors(f, f, pkg, []string{"AfterFunc"})...)
	}
	return found
}

func importPaths(f *ast.File) (paths []string) {
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value) // the parser has seen to it
		paths = append(paths, path)
	}
	return paths
}

func importsPath(f *ast.File, path string) bool { return slices.Contains(importPaths(f), path) }

// selectors finds the uses, within a node of f, of names of a package that is imported under its own name.
func selectors(f *ast.File, within ast.Node, pkg string, names []string) (found []ast.Node) {
	if !importsPath(f, pkg) {
		return nil
	}
	pkg = path.Base(pkg)
	ast.Inspect(within, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && x.Name == pkg && slices.Contains(names, s.Sel.Name) {
			found = append(found, s)
		}
		return true
	})
	return found
}
