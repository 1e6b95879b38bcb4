package main

var forwards, suite []scenario
