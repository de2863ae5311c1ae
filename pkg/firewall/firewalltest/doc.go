// Package firewalltest tests packet filters, and lets others test what stands on them.
//
//   - Main and Lab: a network of namespaces (laptop, stranger, router, LAN host, a home behind NAT) that a test makes for
//     itself without root and without any command;
//   - Fake: a strict firewall.Backend in memory;
//   - Conformance: what every backend must do, proved with real traffic on a real kernel. The Fake passes the part of it
//     that can be told without packets, so that it can't drift from what real ones do.
package firewalltest
