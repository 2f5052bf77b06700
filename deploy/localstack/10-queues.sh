#!/bin/sh
# LocalStack runs this once it is ready: the queues that config/arrivals.yaml and config/sqs.yaml read, each with one for
# its dead letters. The health check asks for shipments-sqs, so that queue comes last.
set -eu
for queue in arrivals-sqs shipments-sqs; do
    awslocal sqs create-queue --queue-name "$queue-dead"
    awslocal sqs create-queue --queue-name "$queue" --attributes '{
        "VisibilityTimeout": "60",
        "RedrivePolicy": "{\"deadLetterTargetArn\":\"arn:aws:sqs:'"$AWS_DEFAULT_REGION"':000000000000:'"$queue"'-dead\",\"maxReceiveCount\":\"5\"}"
    }'
done
