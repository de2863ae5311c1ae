package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder brings a command line into the one order that cli understands: program, command words, options, "--", arguments.
// So options may stand anywhere before a "--" of the caller's, also before the command word and after arguments. cli alone stops at the
// first argument and hands later options to nobody. What cli could only report with its help text around it (an unknown command or option,
// a value left out) is told here as a usageError with a suggestion. Asked-for help and version win over everything else on the line.
func reorder(app *cli.App, args []string) ([]string, error) {
	l, err := scan(app, args[1:])
	if l.version {
		return []string{args[0], "--version"}, nil
	}
	if len(l.words) > 0 && (l.words[0] == "help" || l.words[0] == "h") {
		l.help, l.words = true, l.words[1:]
	}
	cmd, path, rest := descend(app.Commands, l.words)
	out := append([]string{args[0]}, path...)
	if l.help && (len(rest) == 0 || cmd != nil) {
		return append(out, "--help"), nil
	}
	if err != nil {
		return nil, err
	}
	if err := complete(app, cmd, path, rest); err != nil {
		return nil, err
	}
	for _, o := range l.options {
		if owner(cmd.Flags, o.name) == nil {
			return nil, unknownOption(app, cmd, path, o.name)
		}
		out = append(out, o.text...)
	}
	out = append(append(out, "--"), rest...)
	return append(out, l.verbatim...), nil
}

// A line is a command line taken apart: words and options of the part before "--", and what follows it.
type line struct {
	words         []string
	options       []option
	verbatim      []string
	help, version bool
}

// An option is one option as it was written: one string, or two where the value stood by itself.
type option struct {
	name string
	text []string
}

// scan takes args apart. On an error it still reads to the end, so that a --help further on is seen.
func scan(app *cli.App, args []string) (l line, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			l.verbatim = args[i+1:]
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			l.words = append(l.words, arg)
			continue
		}
		name, _, joined := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		switch flag := anywhere(app, name); {
		case name == "help" || name == "h":
			l.help = true
		case name == "version" || name == "v":
			l.version = true
		case flag == nil:
			if err == nil {
				cmd, path, _ := descend(app.Commands, l.words)
				err = unknownOption(app, cmd, path, name)
			}
		case joined || !takesValue(flag):
			l.options = append(l.options, option{name, []string{arg}})
		case i+1 == len(args) || args[i+1] == "--":
			err = usagef("option --%s needs a value; see: %s --help", name, app.Name)
		default:
			i++
			l.options = append(l.options, option{name, []string{arg, args[i]}})
		}
	}
	return l, err
}

// descend follows words through the commands and gives the command they lead to (nil if none), its path, and the words left over.
func descend(commands []*cli.Command, words []string) (cmd *cli.Command, path, rest []string) {
	for i, word := range words {
		next := named(commands, word)
		if next == nil {
			return cmd, path, words[i:]
		}
		cmd, path, commands = next, append(path, next.Name), next.Subcommands
	}
	return cmd, path, nil
}

// complete makes sure that the words led to a command that can run, not to nothing or to a mere group of commands.
func complete(app *cli.App, cmd *cli.Command, path, rest []string) error {
	commands := app.Commands
	if cmd != nil {
		commands = cmd.Subcommands
	}
	if len(commands) == 0 {
		return nil
	}
	full := strings.Join(append([]string{app.Name}, path...), " ")
	if len(rest) == 0 {
		return usagef("no command after %q: one of %s; see: %s --help", full, strings.Join(names(commands), ", "), full)
	}
	return usagef("unknown command %q%s; see: %s --help", rest[0], suggestion(cli.SuggestCommand(commands, rest[0])), full)
}

func unknownOption(app *cli.App, cmd *cli.Command, path []string, name string) error {
	flags, full := app.Flags, app.Name
	if cmd != nil {
		flags, full = cmd.Flags, strings.Join(append([]string{app.Name}, path...), " ")
	}
	near := cli.SuggestFlag(flags, name, false)
	if near != "" {
		near = fmt.Sprintf("did you mean %s?", near)
	}
	return usagef("unknown option %q%s; see: %s --help", dashed(name), suggestion(near), full)
}

func suggestion(text string) string {
	if text == "" {
		return ""
	}
	return " (" + strings.ToLower(text[:1]) + text[1:] + ")"
}

// dashed writes an option's name as it is typed.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// anywhere finds the option of that name in the App or any of its commands. An option has one meaning everywhere, so the first found
// tells whether a value follows; a test holds the commands to it.
func anywhere(app *cli.App, name string) cli.Flag {
	if f := owner(app.Flags, name); f != nil {
		return f
	}
	return below(app.Commands, name)
}

func below(commands []*cli.Command, name string) cli.Flag {
	for _, c := range commands {
		if f := owner(c.Flags, name); f != nil {
			return f
		}
		if f := below(c.Subcommands, name); f != nil {
			return f
		}
	}
	return nil
}

func owner(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func named(commands []*cli.Command, word string) *cli.Command {
	for _, c := range commands {
		if c.HasName(word) {
			return c
		}
	}
	return nil
}

func names(commands []*cli.Command) (out []string) {
	for _, c := range commands {
		if !c.Hidden {
			out = append(out, c.Name)
		}
	}
	return out
}
