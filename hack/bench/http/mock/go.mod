module mock

go 1.22
