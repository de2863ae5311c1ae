package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// line is a command line in its parts. urfave/cli takes options only between the
// command and its first argument, and without a word gives later ones to nobody; here
// they may stand anywhere before "--".
type line struct {
	command string
	options []string // each "--name", "--name=value" or "-n"
	args    []string
	rest    []string // what follows "--"
	dashes  bool     // "--" was there
	help    bool
	version bool
}

// argv returns the line as urfave/cli wants it: command, options, "--", arguments, and
// again "--" before what followed it.
func (l line) argv() []string {
	var a []string
	if l.command != "" {
		a = append(a, l.command)
	}
	if l.help {
		return append(a, "--help")
	}
	a = append(append(a, l.options...), "--")
	a = append(a, l.args...)
	if l.dashes {
		a = append(append(a, "--"), l.rest...)
	}
	return a
}

// arrange takes a command line apart by the options that the app's commands have. Of
// the words that are no options the first is the command, if it is the name of one;
// else the command is open, and all of them are services.
func arrange(app *cli.App, argv []string) (line, error) {
	var l line
	known := allOptions(app)
	for len(argv) > 0 {
		word := argv[0]
		argv = argv[1:]
		if word == "--" {
			l.dashes, l.rest = true, argv
			break
		}
		if len(word) < 2 || word[0] != '-' {
			l.args = append(l.args, word)
			continue
		}
		used, err := l.option(known, word, argv)
		if err != nil {
			return l, err
		}
		argv = argv[used:]
	}
	return l, l.choose(app)
}

// option adds one option; used is how many of the following words belong to it.
func (l *line) option(known options, word string, next []string) (used int, err error) {
	name, value, joined := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(word, "-"), "-"), "=")
	takes, ok := known[name]
	switch {
	case !ok && known.bundle(word):
		for _, c := range word[1:] {
			l.add(string(c), "")
		}
	case !ok:
		return 0, usageErrorf("there is no option %s", strings.SplitN(word, "=", 2)[0])
	case !takes && joined:
		l.add(name, "="+value)
	case !takes:
		l.add(name, "")
	case joined:
		l.add(name, "="+value)
	case len(next) == 0 || next[0] == "--" || known.has(next[0]):
		return 0, usageErrorf("the option %s needs a value, as in %s=VALUE", dashed(name), dashed(name))
	default:
		l.add(name, "="+next[0])
		return 1, nil
	}
	return 0, nil
}

func (l *line) add(name, value string) {
	switch name {
	case "help", "h":
		l.help = true
	case "version":
		l.version = true
	default:
		l.options = append(l.options, dashed(name)+value)
	}
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// choose finds the command and refuses options of other commands.
func (l *line) choose(app *cli.App) error {
	if len(l.args) == 0 {
		if len(l.options) > 0 || l.dashes {
			if !l.help && !l.version {
				return usageErrorf("name a service, as in: knock nas; or a command, as in: knock list")
			}
		}
		return nil
	}
	switch first := l.args[0]; {
	case app.Command(first) != nil:
		l.command, l.args = first, l.args[1:]
	case first == "version":
		l.version = true
		return nil
	case first == "help" || first == "h":
		return l.topic(app)
	default:
		l.command = "open"
	}
	own := optionsOf(app.Command(l.command))
	for _, o := range l.options {
		name, _, _ := strings.Cut(strings.TrimLeft(o, "-"), "=")
		if _, ok := own[name]; !ok && !l.help {
			return usageErrorf("%s is no option of this command; see: knock %s --help", dashed(name), l.command)
		}
	}
	return nil
}

// topic turns "help COMMAND" into "COMMAND --help".
func (l *line) topic(app *cli.App) error {
	l.help = true
	if len(l.args) < 2 {
		return nil
	}
	l.command = l.args[1]
	if app.Command(l.command) == nil {
		return usageErrorf("there is no command %q; see: knock --help", l.command)
	}
	return nil
}

// options says of each option's name whether it takes a value.
type options map[string]bool

func allOptions(app *cli.App) options {
	all := options{"help": false, "h": false}
	all.put(app.Flags)
	for _, c := range app.Commands {
		all.put(c.Flags)
	}
	return all
}

func optionsOf(c *cli.Command) options {
	o := options{}
	o.put(c.Flags)
	return o
}

// put knows the kinds of options that there are here. Their method Names takes a name apart with a regular expression,
// which a knock can do without.
func (o options) put(flags []cli.Flag) {
	for _, f := range flags {
		switch f := f.(type) {
		case *cli.BoolFlag:
			o[f.Name] = false
		case *cli.StringFlag:
			o[f.Name] = true
		default:
			panic(fmt.Sprintf("knock: an option of an unknown kind, %T", f))
		}
	}
}

// bundle reports whether a word is several one-letter options in one, as -46.
func (o options) bundle(word string) bool {
	letters := strings.Split(word[1:], "")
	return word[1] != '-' && !slices.ContainsFunc(letters, func(l string) bool {
		takes, ok := o[l]
		return !ok || takes
	})
}

// has reports whether a word is one of the options.
func (o options) has(word string) bool {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	_, ok := o[name]
	return len(word) > 1 && word[0] == '-' && ok
}
