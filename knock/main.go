// Command knock opens a door of a router that spad guards: it sends one signed,
// encrypted UDP packet and says whether the door is open.
//
//	knock enroll INVITE|-            make the key, enrol, store the router
//	knock [open] SERVICE...          open services for the address this device has
//	knock SERVICE --wait -- COMMAND  run a command once the port answers
//	knock SERVICE --every 10m        keep it open until stopped
//	knock close SERVICE...           close them again
//	knock list | key | forget ROUTER
//	knock doctor [ROUTER]            look for what keeps knocks from working
//	knock rescue KEY|- SERVICE...    open services with a key from paper, store nothing
//
// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no answer, 4 denied,
// 5 opened but the port does not answer. Of several services the highest counts.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
