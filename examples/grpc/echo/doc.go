// SPDX-License-Identifier: Apache-2.0

// Package echo is the service of the gRPC example, generated from echo.proto with protoc-gen-go and protoc-gen-go-grpc.
package echo

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative echo.proto
