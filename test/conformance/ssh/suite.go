package main

var suite []scenario
