// Package tools names the programs that the tests build, so that `go mod tidy` keeps their module.
package tools

import _ "github.com/opencontainers/runtime-tools/validation/util"
