// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
)

// writeJSON writes v as the one member of an object, under the name of the object that was asked for.
func writeJSON(w io.Writer, name string, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // for people to read
	return enc.Encode(map[string]any{name: v})
}
