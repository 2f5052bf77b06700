#!/bin/sh
# LocalStack runs this once it is ready: the queue that config/sqs.yaml reads, and the one for its dead letters.
set -eu
dead=shipments-sqs-dead
awslocal sqs create-queue --queue-name "$dead"
awslocal sqs create-queue --queue-name shipments-sqs --attributes '{
    "VisibilityTimeout": "60",
    "RedrivePolicy": "{\"deadLetterTargetArn\":\"arn:aws:sqs:'"$AWS_DEFAULT_REGION"':000000000000:'"$dead"'\",\"maxReceiveCount\":\"5\"}"
}'
