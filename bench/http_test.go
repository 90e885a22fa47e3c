// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"
	"testing"
)

func TestAnswerLength(t *testing.T) {
	answer := "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\nContent-Type: text/html\r\n\r\nhello"
	header := strings.Index(answer, "hello")
	for n := range answer {
		got, err := answerLength([]byte(answer[:n]))
		want := -1
		if n >= header {
			want = len(answer)
		}
		if got != want || err != nil {
			t.Errorf("of %d bytes: %d, %v", n, got, err)
		}
	}
	for _, wrong := range []string{
		"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
	} {
		if n, err := answerLength([]byte(wrong)); err == nil {
			t.Errorf("%q has a length of %d", wrong, n)
		}
	}
}
