package main

import (
	"os/exec"
	"runtime"
)

// starter starts processes that are to die with the driver. The kernel sends Pdeathsig when the thread that started a
// process ends, so one thread that never does starts them all.
var starter = func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
}()

// startKept starts cmd from the thread that stays.
func startKept(cmd *exec.Cmd) error {
	err := make(chan error)
	starter <- func() { err <- cmd.Start() }
	return <-err
}
