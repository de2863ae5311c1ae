package control

import _ "embed" // of the description

// openAPI describes the operations for who writes another client. Tests hold it against the server, both ways.
//
//go:embed openapi.json
var openAPI []byte
